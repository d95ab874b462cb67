"""Takes an array's network, gives its nodes, links and channels."""
