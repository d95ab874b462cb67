"""The command line: takes what a user types, gives tables, files and an exit code.

Only click and what is light is imported here, and that not before `main` can tell that it was interrupted; each command
imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pe_sim.cli.app import cli

__all__ = ["cli", "main"]


def main() -> None:
    """The entry point of the console script."""
    try:
        from pe_sim.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:  # the limit of open files, a folder that went away
        print(f"error: pe-sim cannot be loaded: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    run()


def __getattr__(name: str) -> Any:
    """`cli`, the click group, at its first use."""
    if name == "cli":
        from pe_sim.cli import app

        return app.cli
    raise AttributeError(f"module 'pe_sim.cli' has no attribute {name!r}")
