"""The command line: takes what a user types, gives tables, files and an exit code.

Only click and what is light is imported here; each command imports what it needs when it runs.
"""

from pe_sim.cli.app import cli, main

__all__ = ["cli", "main"]
