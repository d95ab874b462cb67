"""The search for the best mapping: takes a model, an array and steps, gives the best workflow and how sure that is."""
