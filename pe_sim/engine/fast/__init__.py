"""Takes a schedule, gives the same trace by recurrences over arrays."""
