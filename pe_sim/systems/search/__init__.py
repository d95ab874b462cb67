"""Takes a model, a system and a step, gives the best plan and workflow."""
