"""Takes a schedule, gives a trace."""
