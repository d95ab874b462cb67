"""Takes names of presets, paths and texts, gives plain mappings and values that were checked strictly."""
