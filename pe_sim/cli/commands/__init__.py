"""The commands: each takes its options, gives a table, files or a message."""
