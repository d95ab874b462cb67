"""The table of mode transforms: what is moved, the columns, matrices for a terminal, and what one reads from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

# way: the primitive moves, in order. closed_form_cycles: what the mapper expects; none of caches. messages, bytes: over
# bus and tree.
COLUMNS: Final = ("tensor", "pes", "from", "to", "way", "cycles", "closed_form_cycles", "messages", "bytes")


@dataclass(frozen=True, slots=True)
class Kind:
    """A tensor to be moved.

    Args:
        name: for the table and the picture.
        what: what it is, for people.
        rows: sequences with one row each; of the cache, sequences.
        heads, head_dim: of a row.
        is_cache: K and V of one layer instead of a vector.
    """

    name: str
    what: str
    rows: int
    heads: int
    head_dim: int
    is_cache: bool = False


KINDS = (
    Kind("4 KiB", "one row of llama-3.2-1b", 1, 32, 64),
    Kind("16 KiB", "one row of llama-2-70b", 1, 64, 128),
    Kind("256 KiB", "32 rows of llama-2-7b", 32, 32, 128),
    Kind("KV, 32 MiB", "one layer of llama-2-7b, 16 x 128 tokens", 16, 32, 128, is_cache=True),
)


def numbers_of(table: pd.DataFrame) -> list[int]:
    """The numbers of PEs, in order."""
    return sorted(int(pes) for pes in table["pes"].unique())


def matrix(table: pd.DataFrame, tensor: str, pes: int) -> tuple[list[str], np.ndarray]:
    """Names of the placements, and cycles from each (rows) to each (columns); -1 on the diagonal."""
    mine = table[(table["tensor"] == tensor) & (table["pes"] == pes)]
    names = [str(name) for name in mine["from"].unique()]
    cycles = mine.pivot(index="from", columns="to", values="cycles").reindex(index=names, columns=names)
    return names, cycles.fillna(-1).astype(np.int64).to_numpy()


def said(table: pd.DataFrame) -> str:
    """All that is printed."""
    return "\n".join([format_table(table), findings(table), verdict(table)])


def agrees(table: pd.DataFrame) -> bool:
    """Whether every transform of a vector takes what the mapper expects."""
    return bool(_wrong(table).empty)


def _wrong(table: pd.DataFrame) -> pd.DataFrame:
    known = table[table["closed_form_cycles"].notna()]
    return known[known["cycles"] != known["closed_form_cycles"]]


def format_table(table: pd.DataFrame) -> str:
    """The matrices for a terminal."""
    lines: list[str] = []
    for tensor in table["tensor"].unique():
        for pes in numbers_of(table):
            names, cycles = matrix(table, tensor, pes)
            heading = f"{f'{tensor}, {pes} PEs: from / to':<28}" + "".join(f"{name:>15}" for name in names)
            lines += [heading, "-" * len(heading)]
            for name, row in zip(names, cycles.tolist(), strict=True):
                lines.append(f"  {name:<26}" + "".join(f"{'' if each < 0 else f'{each:,}':>15}" for each in row))
            lines.append("")
    return "\n".join(lines)


def verdict(table: pd.DataFrame) -> str:
    """Whether every transform of a vector takes what the mapper expects; else the first ones that do not."""
    wrong, known = _wrong(table), int(table["closed_form_cycles"].notna().sum())
    if wrong.empty:
        return f"All {known} transforms of vectors take what the mapper chooses their ways by, to the cycle."
    shown = [
        f"  {each['tensor']}, {each['pes']} PEs, {each['from']} -> {each['to']}: {each['cycles']},"
        f" not {int(each['closed_form_cycles'])}"
        for each in wrong.head(10).to_dict("records")
    ]
    return "\n".join([f"{len(wrong)} of {known} transforms DIFFER from what the mapper expects:", *shown])


def findings(table: pd.DataFrame) -> str:
    """What the figures say, tensor by tensor: how the dearest and the cheapest transforms grow with N."""
    return "\n".join(["Findings", *(f"- {_of_tensor(table, kind)}" for kind in KINDS)])


def _of_tensor(table: pd.DataFrame, kind: Kind) -> str:
    few, many = numbers_of(table)[0], numbers_of(table)[-1]
    mine = table[table["tensor"] == kind.name].set_index(["from", "to"])
    first, last = mine[mine["pes"] == few], mine[mine["pes"] == many]
    paid = last[last["cycles"] > 0]
    said = [
        f"{source} -> {target} ({paid['way'][source, target]}) {first['cycles'][source, target]:,} to"
        f" {paid['cycles'][source, target]:,} cycles"
        for source, target in (paid["cycles"].idxmin(), paid["cycles"].idxmax())
    ]
    return (
        f"{kind.name} ({kind.what}), {few} to {many:,} PEs: {len(last) - len(paid)} of {len(last)} transforms are free;"
        f" the cheapest other is {said[0]}, the dearest {said[1]}."
    )
