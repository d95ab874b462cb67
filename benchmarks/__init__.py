"""How fast the simulator itself is: measures, prints one table, writes docs/performance.md (`make bench`)."""
