"""Takes an operator graph, an array and a workflow, gives the placed graph with its transforms inserted."""
