"""Takes a placed graph, weights and tokens, gives real numbers and counted traffic: the proof of a mapping."""
