"""Takes a schedule and its trace, gives figures: utilization, critical path, channels, energy, trust."""
