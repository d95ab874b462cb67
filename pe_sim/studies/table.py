"""The table of a sweep: takes rows, gives Arrow tables with typed columns, and puts them into the order of the points.

Whole numbers are int64; of situations, whose steps count in halves, sums are float64, and so is then the whole column.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pe_sim._version import __version__
from pe_sim.studies.grid import SCHEMA, Sweep, canonical
from pe_sim.studies.rows import BASIS, NO_FIT, Row
from pe_sim.units import IntArray

Keys = npt.NDArray[np.bytes_]

_CONFIG: Final = "config."  # before the names of a row file's columns that `configs.parquet` gets
CONFIGS: Final = ("model", "array", "step", "workflow")
SLICE: Final = 65536  # points of a row group, which are in memory at once in addition to the figures
# Columns that every table has, even if all points failed; then the groups of figures in their order.
_ALWAYS: Final = {
    "phase": pa.string(),
    "batch": pa.int64(),
    "num_pes": pa.int64(),
    "clock_ghz": pa.float64(),
    "cycles": pa.int64(),
    "seconds": pa.float64(),
    "tokens_per_second": pa.float64(),
}
_ACCURACY: Final = {"accuracy.envelope": pa.string(), "accuracy.percent": pa.float64()}
_ERRORS: Final = {"error": pa.string(), "error_kind": pa.string()}
_WORDS: Final = {NO_FIT: pa.string(), BASIS: pa.string()}
_FIXED: Final = {"key": pa.string(), **_ALWAYS, **_WORDS, **_ACCURACY, **_ERRORS}
_GROUPS: Final = (
    "messages.",
    "bytes.",
    "busy_cycles.",
    "utilization.",
    "bounds.",
    "energy_joules",
    "joules_per_token",
    "average_watts",
    "area_mm2",
    "memory.",
)
# Columns that a path of the sweep may share its name with, and values of their types: where a point leaves the path
# out, the column holds what was simulated.
_SIMULATED: Final = {"phase": "", "batch": 0, "num_pes": 0, "clock_ghz": 0.0}
_FIRST_SETTINGS: Final = ("model", "array", "workflow", "situation", "phase", "batch", "context", "prompt")


def rows_to_table(rows: Sequence[Row]) -> pa.Table:
    """The table of a row file: keys, figures, errors, and the configs as dictionary-encoded texts."""
    names = dict.fromkeys(name for row in rows for name in row.figures)
    columns = {"key": pa.array([row.key for row in rows], pa.string())}
    for name in (*_ALWAYS, *(name for name in names if name not in _ALWAYS)):
        columns[name] = _figures_column(name, [row.figures.get(name) for row in rows])
    for name in _ERRORS:
        columns[name] = pa.array([getattr(row, name) for row in rows], pa.string())
    for name in CONFIGS:
        texts = pa.array([row.configs.get(name) for row in rows], pa.string())
        columns[_CONFIG + name] = texts.dictionary_encode()
    return pa.table(columns)


def _figures_column(name: str, values: list[Any]) -> pa.Array:
    declared = _FIXED.get(name)
    if declared != pa.int64() and declared is not None:
        return pa.array(values, declared)
    fractions = any(isinstance(value, float) for value in values)
    return pa.array(values, pa.float64() if fractions else pa.int64())


def is_config(name: str) -> bool:
    """Whether a column of a row file is needed for the configs: the key and the configs themselves."""
    return name == "key" or name.startswith(_CONFIG)


def is_figure(name: str) -> bool:
    """Whether a column of a row file is needed for the table of results: all but the configs."""
    return not name.startswith(_CONFIG)


def write_rows(path: Path, rows: pa.Table) -> None:
    """Writes a row file, compressed for speed, as it is small and soon read again."""
    configs = [_CONFIG + name for name in CONFIGS]
    pq.write_table(
        rows, path, compression="lz4", use_dictionary=configs, write_statistics=False, write_page_checksum=True
    )


def keys_of(table: pa.Table) -> Keys:
    """(rows,) the keys of a row file's table."""
    return np.array(table.column("key").to_pylist(), dtype="S32")


def concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """Several tables of rows as one, each column with the widest of its types."""
    return pa.concat_tables(tables, promote_options="permissive")


def last_rows(known: Keys, wanted: Keys) -> IntArray:
    """(wanted,) index of the last row with each wanted key, all of which must be there."""
    names, from_behind = np.unique(known[::-1], return_index=True)
    places = np.searchsorted(names, wanted)
    assert np.array_equal(names[places], wanted), "a point has no row"
    rows: IntArray = len(known) - 1 - from_behind[places]
    return rows


def write_results(path: Path, sweep: Sweep, keys: Keys, figures: pa.Table) -> None:
    """Writes the table of all points in their order, slice by slice.

    Args:
        keys: (points,) the key of each point.
        figures: the concatenated tables of all row files, without their configs.
    """
    rows = last_rows(keys_of(figures), keys)
    settings = _settings_fields(sweep)
    kept = _kept_columns(figures, rows, {field.name for field in settings})
    metadata = {"pe-sim.schema": SCHEMA, "pe-sim.version": __version__, "pe-sim.sweep": sweep.name}
    head = [
        pa.field("schema", pa.dictionary(pa.int32(), pa.string())),
        pa.field("point", pa.int64()),
        pa.field("key", pa.string()),
    ]
    schema = pa.schema([*head, *settings, *kept.schema], metadata=metadata)
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        for start in range(0, len(sweep), SLICE):
            stop = min(start + SLICE, len(sweep))
            here = rows[start:stop]
            columns = [
                pa.array([SCHEMA] * (stop - start), pa.string()).dictionary_encode(),
                pa.array(np.arange(start, stop)),
                pa.array([key.decode() for key in keys[start:stop].tolist()], pa.string()),
                *(
                    _settings_column(field, _filled(field.name, sweep.column(field.name, start, stop), figures, here))
                    for field in settings
                ),
                *kept.take(here).combine_chunks().columns,
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _settings_fields(sweep: Sweep) -> list[pa.Field]:
    """A typed field for every path that the sweep sets, the most looked-for paths first."""
    first = [path for path in _FIRST_SETTINGS if path in sweep.paths]
    ordered = [*first, *(path for path in sweep.paths if path not in first)]
    simulated = {path: [_SIMULATED[path]] for path in ordered if path in _SIMULATED}
    return [pa.field(path, _type_of([*sweep.values(path), *simulated.get(path, ())])) for path in ordered]


def _type_of(values: Sequence[Any]) -> pa.DataType:
    """The Arrow type that holds all values unchanged; text (of JSON) where no other type does."""
    types = {type(value) for value in values if value is not None}
    if types == {bool}:
        return pa.bool_()
    if types == {int} and all(abs(value) < 2**63 for value in values if value is not None):
        return pa.int64()
    if types and types <= {int, float} and all(abs(value) < 2**53 for value in values if type(value) is int):
        return pa.float64()
    return pa.string()


def _filled(name: str, values: list[Any], figures: pa.Table, rows: IntArray) -> list[Any]:
    """The values that points give a path; for paths in `_SIMULATED`, what was simulated where it is left out."""
    if name not in _SIMULATED or None not in values:
        return values
    simulated = figures.column(name).take(rows).to_pylist()
    return [other if value is None else value for value, other in zip(values, simulated, strict=True)]


def _settings_column(field: pa.Field, values: list[Any]) -> pa.Array:
    if field.type == pa.string():
        values = [value if isinstance(value, str | None) else canonical(value) for value in values]
    elif field.type == pa.float64():
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, field.type)


def _kept_columns(figures: pa.Table, rows: IntArray, given: set[str]) -> pa.Table:
    """The columns of figures in their order: those of every table, and those that some row fills."""
    used = np.unique(rows)
    others = [name for name in figures.column_names if name not in _FIXED]
    filled = [name for name in others if figures.column(name).take(used).null_count < len(used)]
    ordered = sorted(filled, key=lambda name: (_group_of(name), name))
    names = [name for name in (*_ALWAYS, *_WORDS, *ordered, *_ACCURACY, *_ERRORS) if name not in given]
    present = {name: figures.column(name) if name in figures.column_names else None for name in names}
    return pa.table(
        {name: pa.nulls(len(figures), _FIXED[name]) if column is None else column for name, column in present.items()}
    )


def _group_of(name: str) -> int:
    return next((place for place, group in enumerate(_GROUPS) if name.startswith(group)), len(_GROUPS))


def write_configs(path: Path, parts: Iterator[pa.Table], keys: Keys) -> None:
    """Writes the configs of all keys, each key once.

    Args:
        parts: keys and configs of the row files, the latest first; for a key in several rows the latest counts.
    """
    wanted = set(np.unique(keys).tolist())
    schema = pa.schema([pa.field("key", pa.string()), *(pa.field(name, pa.string()) for name in CONFIGS)])
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        for part in parts:
            rows = []
            for row, key in enumerate(keys_of(part)[::-1].tolist()):
                if key in wanted:
                    wanted.discard(key)
                    rows.append(len(part) - 1 - row)
            taken = part.take(np.array(sorted(rows), dtype=np.int64))
            columns = [taken.column(name).cast(pa.string()) for name in ("key", *(_CONFIG + name for name in CONFIGS))]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
