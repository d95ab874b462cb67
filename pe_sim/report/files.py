"""Writes files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pe_sim.errors import InputError


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` to a temporary file beside `path`, then puts it in its place.

    Raises:
        InputError: `path` is a directory, or its folder is missing or cannot be written to.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError("is a directory, not a file", source=str(target), expected="the path of a file to write")
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    except OSError as fault:
        hint = "create the folder first" if not target.parent.is_dir() else None
        raise InputError(f"cannot be written: {fault.strerror}", source=str(target), hint=hint) from fault
    try:
        with open(handle, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, _mode_of(target))
        os.replace(temporary, target)
    except BaseException as fault:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(fault, OSError):
            raise InputError(f"cannot be written: {fault.strerror}", source=str(target)) from fault
        raise


def _mode_of(target: Path) -> int:
    """Permissions of the file that is replaced; for a new one, 0o644."""
    return target.stat().st_mode & 0o777 if target.exists() else 0o644
