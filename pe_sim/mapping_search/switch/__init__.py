"""Takes two mappings of a model, gives what it costs to go from one to the other, and the best pair."""
