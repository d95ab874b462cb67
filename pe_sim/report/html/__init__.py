"""Takes reports, gives a page in one file."""
