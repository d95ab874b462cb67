"""Takes a placed graph, gives the schedule: stages on PEs, root, bus and tree with arrays of durations."""
