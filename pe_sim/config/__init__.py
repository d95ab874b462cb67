"""Takes YAML, JSON and names of presets, gives validated, frozen configs."""
