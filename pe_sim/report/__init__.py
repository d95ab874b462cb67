"""Takes a step's configs, schedule and trace, gives its report: metrics, critical path, tables, plots and Perfetto."""
