"""Takes a schedule, gives its trace event by event, with SimPy: the reference."""
