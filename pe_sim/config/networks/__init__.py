"""Takes the network section of an array or system file, gives the frozen interconnect."""
