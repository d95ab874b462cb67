"""Takes the interconnect's parameters, gives what its channels and trees cost."""
