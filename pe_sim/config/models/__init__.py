"""Takes a model file of any known dialect, gives a frozen ModelConfig."""
