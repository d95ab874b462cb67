"""The folder of a sweep: takes rows as they are done, keeps them whatever is killed when, gives the table at the end.

sweep.yaml         the sweep with its ranges written out
parts/*.parquet    rows as they were done: a file is there whole or not at all, and is never changed
results.parquet    the table, in the order of the points
configs.parquet    the resolved config of every key
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pe_sim._version import __version__
from pe_sim.errors import InputError
from pe_sim.studies.grid import SCHEMA, Sweep, load_sweep
from pe_sim.studies.rows import INPUT
from pe_sim.studies.table import (
    Keys,
    concatenated,
    is_config,
    is_figure,
    write_configs,
    write_results,
    write_rows,
)

RESULTS: Final = "results.parquet"
CONFIGS: Final = "configs.parquet"
_SWEEP: Final = "sweep.yaml"
_PARTS: Final = "parts"
_LOCK: Final = ".lock"
_PART: Final = "part-{:08d}.parquet"
_NUMBER: Final = re.compile(r"part-(\d+)\.parquet")  # also of one that was set aside
_UNREADABLE: Final = ".unreadable"
_TEMPORARY: Final = ".writing"


class Store:
    """The folder of a sweep with its rows; made by `open_store`, which holds the folder's lock."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder as it is: what was being written when a sweep was killed is removed."""
        self.folder = folder
        self.set_aside: list[Path] = []
        (folder / _PARTS).mkdir(exist_ok=True)
        for place in (folder, folder / _PARTS):
            for left in place.glob(f"*{_TEMPORARY}"):
                left.unlink()

    @property
    def results(self) -> Path:
        """Path of the table that the sweep ends with."""
        return self.folder / RESULTS

    def finished(self) -> frozenset[str]:
        """The keys that need not be computed again; row files that cannot be read are set aside.

        A row with the error of a wrong input is finished, as it would fail again; one of a fault or a dead worker is
        not.
        """
        keys: set[str] = set()
        for path in self._parts():
            table = self._read_or_set_aside(path)
            if table is not None:
                kinds = table.column("error_kind").to_pylist()
                pairs = zip(table.column("key").to_pylist(), kinds, strict=True)
                done = {key: kind in (None, INPUT) for key, kind in pairs}
                keys = {key for key in keys if done.get(key, True)} | {key for key, fine in done.items() if fine}
        return frozenset(keys)

    def add(self, rows: pa.Table) -> None:
        """Writes rows to the disk; once this returns they survive a crash of the process or the machine.

        Raises:
            InputError: the file cannot be written.
        """
        known = [_NUMBER.match(path.name) for path in (self.folder / _PARTS).iterdir()]
        numbers = [int(match[1]) for match in known if match]
        path = self.folder / _PARTS / _PART.format(max(numbers, default=0) + 1)
        write_whole(path, lambda draft: write_rows(draft, rows))

    def merge(self, sweep: Sweep, keys: Keys) -> None:
        """Writes the table of all points, and the configs behind it, from all rows.

        Args:
            keys: (points,) the key of each point; every one has a row.

        Raises:
            InputError: a file cannot be written, or a row file was damaged while the sweep ran.
        """
        paths = self._parts()
        figures = concatenated([_read(path, is_figure) for path in paths])
        write_whole(self.results, lambda draft: write_results(draft, sweep, keys, figures))
        latest_first = (_read(path, is_config) for path in reversed(paths))
        write_whole(self.folder / CONFIGS, lambda draft: write_configs(draft, latest_first, keys))

    def _parts(self) -> list[Path]:
        return sorted((self.folder / _PARTS).glob("part-*.parquet"))

    def _read_or_set_aside(self, path: Path) -> pa.Table | None:
        try:
            return _read(path)
        except InputError:
            aside = path.with_name(path.name + _UNREADABLE)
            os.replace(path, aside)
            self.set_aside.append(aside)
            return None


@contextmanager
def open_store(folder: Path, sweep: Sweep, *, resume: bool) -> Iterator[Store]:
    """The folder of a sweep, locked for one process at a time while the `with` lasts.

    Args:
        resume: whether the folder may hold rows of this sweep already.

    Raises:
        InputError: the folder cannot be made, is in use, holds another sweep, or this one without `resume`.
    """
    try:
        os.fspath(folder).encode("utf-8")
    except UnicodeEncodeError:
        problem = "the folder's name is not UTF-8 text, which Parquet files need"
        raise InputError(problem, source="--out", given=str(folder)) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_folder(folder, sweep, resume)  # before anything is put there
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"the folder cannot be written: {error.strerror}", source="--out", given=str(folder)) from None
    try:
        _take(lock, folder)
        _check_folder(folder, sweep, resume)  # again: until now another sweep may have been at it
        if not (folder / _SWEEP).exists():  # first of all: a folder without it is nobody's
            write_whole(folder / _SWEEP, lambda draft: draft.write_text(described(sweep), encoding="utf-8"))
        yield Store(folder)
    finally:
        os.close(lock)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file next to its place, makes sure that it is on the disk, and moves it there.

    Raises:
        InputError: it cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
        draft = Path(name)
        try:
            os.close(handle)
            write(draft)
            os.chmod(draft, 0o644)
            _to_disk(draft)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        _to_disk(path.parent)
    except OSError as error:
        raise InputError(f"the file cannot be written: {error.strerror or error}", source=str(path)) from None


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _take(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(
            "another sweep is writing into this folder",
            source="--out",
            given=str(folder),
            hint="wait until it is done, or take another folder",
        ) from None


def _check_folder(folder: Path, sweep: Sweep, resume: bool) -> None:
    """Raises if the folder is not this sweep's, or holds it already without `resume`."""
    path = folder / _SWEEP
    if not path.exists():
        others = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        if others:
            raise InputError(
                f"the folder is not empty, and holds no sweep: {', '.join(others[:3])}",
                source="--out",
                given=str(folder),
                hint="take a folder that is empty or not there yet",
            )
        return
    different = _difference(load_sweep(path), sweep)
    if different:
        raise InputError(
            f"the folder holds another sweep: {different}",
            source="--out",
            given=str(folder),
            hint=f"take another folder; {path} says what is in this one",
        )
    if not resume:
        raise InputError(
            "the folder holds this sweep already",
            source="--out",
            given=str(folder),
            hint="--resume goes on with it and computes no point twice; or take another folder",
        )


def _difference(there: Sweep, here: Sweep) -> str:
    """A difference between two sweeps in words; empty if they have the same points."""
    both = [sweep.to_dict() for sweep in (there, here)]
    for section in ("base", "grid", "points"):
        old, new = (told.get(section, {}) for told in both)
        if old == new and list(old) == list(new):
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            for path in dict.fromkeys((*old, *new)):
                if old.get(path) != new.get(path):
                    return f"{section}.{path} is {_short(old, path)} there and {_short(new, path)} here"
        return f"its {section} differ" if section == "points" else f"its {section} has another order"
    return ""


def _short(section: dict[str, Any], path: str) -> str:
    text = str(section[path]) if path in section else "not set"
    return text if len(text) <= 40 else text[:37] + "..."


class _Dumper(yaml.SafeDumper):
    """A YAML dumper without anchors: equal values are written out each time."""

    def ignore_aliases(self, data: object) -> bool:
        """True: every value is written out where it stands."""
        return True


def described(sweep: Sweep) -> str:
    """The text of `sweep.yaml`: a sweep's file with the points of this sweep."""
    head = f"# {len(sweep):,} points, written out by pe-sim {__version__} ({SCHEMA}).\n"
    text: str = yaml.dump(sweep.to_dict(), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120)
    return head + text


def _read(path: Path, wanted: Callable[[str], bool] = bool) -> pa.Table:
    """The columns of a row file that are wanted by name, read with checksums verified.

    Raises:
        InputError: it cannot be read, or is no row file.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            table = file.read([name for name in names if wanted(name)], use_threads=False)  # small: threads cost more
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"the row file cannot be read: {error}", source=str(path)) from None
    if not {"key", "cycles", "error_kind"} <= set(names):
        raise InputError("this is no row file of a sweep", source=str(path))
    return table
