"""Takes a step on several arrays, gives its figures, tables and trace."""
