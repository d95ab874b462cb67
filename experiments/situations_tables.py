"""The table of the map, and what one reads from it; every number in a sentence is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import pandas as pd

from experiments.situations_map import PIPELINE, USUAL, WORKFLOWS, Spot

AT_LEAST, CONTINUED = f"at_least.{PIPELINE}", f"continued.{PIPELINE}"
# cycles.WORKFLOW: of those that were simulated. at_least.*: not simulated, as it takes at least that and is not the
# best. continued.*: its cycles are those of few sequences, continued. reason: where nothing fits, what comes nearest.
COLUMNS: Final = {
    "model": "string",
    "array": "string",
    "batch": "int64",
    "context": "int64",
    "best": "string",
    "gain_over_second": "float64",
    f"gain_over_{USUAL}": "float64",
    **{f"cycles.{name}": "Int64" for name in WORKFLOWS},
    AT_LEAST: "Int64",
    CONTINUED: "bool",
    "reason": "string",
}


def map_table(spots: Iterable[Spot]) -> pd.DataFrame:
    """A row for each square."""
    return pd.DataFrame([_row(spot) for spot in spots], columns=list(COLUMNS)).astype(COLUMNS)


def _row(spot: Spot) -> dict[str, Any]:
    assert set(spot.at_least) | set(spot.continued) <= {PIPELINE}, "only that one has a bound"
    best = (spot.best or None, spot.gain_over("second"), spot.gain_over(USUAL)) if spot.cycles else (None, None, None)
    cycles = [spot.cycles.get(name) for name in WORKFLOWS]
    pipeline = (spot.at_least.get(PIPELINE), PIPELINE in spot.continued)
    place = (spot.model, spot.array, spot.batch, spot.context)
    return dict(zip(COLUMNS, (*place, *best, *cycles, *pipeline, spot.reason or None), strict=True))


def spots_in(table: pd.DataFrame) -> list[Spot]:
    """The squares of a table; of the reasons, the one that comes nearest to fitting where nothing does."""
    return [_spot(row) for row in table.to_dict("records")]


def _spot(row: dict[Any, Any]) -> Spot:
    cycles = {name: int(row[f"cycles.{name}"]) for name in WORKFLOWS if pd.notna(row[f"cycles.{name}"])}
    at_least = {PIPELINE: int(row[AT_LEAST])} if pd.notna(row[AT_LEAST]) else {}
    continued = (PIPELINE,) if row[CONTINUED] else ()
    reasons = {WORKFLOWS[0]: row["reason"]} if pd.notna(row["reason"]) else {}
    place = row["model"], row["array"], int(row["batch"]), int(row["context"])
    return Spot(*place, cycles, at_least, continued, reasons)


def areas(spots: Iterable[Spot]) -> list[tuple[str, str]]:
    """Models and arrays, in order."""
    return list(dict.fromkeys((spot.model, spot.array) for spot in spots))


def findings(spots: Sequence[Spot]) -> str:
    """Who wins how much of each map, and what that is worth."""
    lines = []
    for model, array in areas(spots):
        mine = [spot for spot in spots if (spot.model, spot.array) == (model, array)]
        fitting = [spot for spot in mine if spot.cycles]
        wins = {name: sum(spot.best == name for spot in fitting) for name in WORKFLOWS}
        listed = sorted((name for name in WORKFLOWS if wins[name]), key=lambda name: -wins[name])
        won = ", ".join(f"{name} {wins[name]}" for name in listed)
        line = f"{model} on {array}: of {len(mine)} squares {len(fitting)} fit; the best is {won}"
        gains = [(gain, spot) for spot in fitting if (gain := spot.gain_over(USUAL))]
        if gains:
            gain, where = max(gains, key=lambda pair: pair[0])
            line += f"; at most {gain:.1%} fewer cycles than {USUAL} (batch {where.batch}, context {where.context:,})"
        without = sum(USUAL not in spot.cycles for spot in fitting)
        line += f"; on {without} {USUAL} does not fit" if without else ""
        lines.append(f"{line}. {_for_the_smallest_batch(fitting)}")
    return "\n".join(lines)


def _for_the_smallest_batch(fitting: Sequence[Spot]) -> str:
    """From which context on which workflow is the best."""
    row = [spot for spot in fitting if spot.batch == min(spot.batch for spot in fitting)]
    row.sort(key=lambda spot: spot.context)
    changes = [spot for before, spot in zip([None, *row], row, strict=False) if not before or before.best != spot.best]
    said = ", ".join(f"{spot.best} from {spot.context:,}" for spot in changes)
    last = row[-1]
    gain = last.gain_over(USUAL)
    saved = "" if gain is None else f", {gain:.1%} fewer cycles than {USUAL} at {last.context:,}"
    return f"Batch {last.batch} by context: {said}{saved}."
