"""Takes a model, an array and what to vary, gives tables: sweeps over grids, and what each parameter is worth."""
