"""Takes a system file, gives a frozen SystemConfig: arrays and their links."""
