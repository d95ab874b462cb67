"""Takes a model config and a step, gives the operator graph of that step."""
