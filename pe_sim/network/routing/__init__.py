"""Takes a topology and end points, gives routes, flows and the hops of messages with their times."""
