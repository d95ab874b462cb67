"""Takes a plan file of any known dialect, gives a checked ParallelPlan."""
