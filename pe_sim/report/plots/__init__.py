"""Takes reports and tables, draws them; the one place that imports matplotlib."""
