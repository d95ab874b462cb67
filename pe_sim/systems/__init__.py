"""Takes a model, a system of arrays, a step and a plan; gives passes on arrays, what they exchange, and a report."""
