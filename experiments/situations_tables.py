"""Tables of the map and of the situations, and what one reads from them; every number in a sentence is computed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.situations_map import USUAL, WORKFLOWS, Spot
from experiments.situations_search import SEARCHED, Served, best_named, by_case

MAP_COLUMNS = (
    "model",
    "array",
    "batch",
    "context",
    "best",
    "gain over second",
    f"gain over {USUAL}",
    *(f"{name} cycles" for name in WORKFLOWS),
    "why nothing fits",
)
SITUATION_COLUMNS = (
    "model",
    "array",
    "situation",
    "workflow",
    "prefill cycles",
    "decode cycles",
    "all cycles",
    "gain of searched",
    "mapping or why not",
)
AT_LEAST, CONTINUED = ">=", "~"


def map_cells(spot: Spot) -> list[str]:
    """A row of the map's CSV; `>=`: not simulated, as it takes at least that; `~`: continued from few sequences."""
    gains = [spot.gain_over("second"), spot.gain_over(USUAL)]
    cycles = []
    for name in WORKFLOWS:
        mark = CONTINUED if name in spot.continued else ""
        known = f"{mark}{spot.cycles[name]}" if name in spot.cycles else ""
        cycles.append(f"{AT_LEAST}{spot.at_least[name]}" if name in spot.at_least else known)
    head = [spot.model, spot.array, str(spot.batch), str(spot.context), spot.best]
    return [*head, *("" if gain is None else f"{gain:.4f}" for gain in gains), *cycles, spot.reason]


def situation_cells(served: Sequence[Served]) -> list[list[str]]:
    """The rows of one case in the CSV of situations."""
    found = served[-1]
    rows = []
    for each in served:
        head = [each.model, each.array, each.situation.name, each.workflow]
        if not each.step_cycles:
            rows.append([*head, "", "", "", "", each.reason])
            continue
        figures = [f"{each.of_phase('prefill'):.0f}", f"{each.of_phase('decode'):.0f}", f"{each.cycles:.0f}"]
        rows.append([*head, *figures, f"{1 - found.cycles / each.cycles:.4f}", each.mapping])
    return rows


def write_map(spots: Iterable[Spot], path: Path) -> None:
    """The CSV of the map."""
    _write(path, MAP_COLUMNS, map(map_cells, spots))


def write_situations(served: Sequence[Served], path: Path) -> None:
    """The CSV of the situations."""
    _write(path, SITUATION_COLUMNS, (row for case in by_case(served).values() for row in situation_cells(case)))


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_map(path: Path) -> list[Spot]:
    """The spots of a CSV, for a picture without simulating anew."""
    with path.open(encoding="utf-8", newline="") as stream:
        return [_spot(row) for row in csv.DictReader(stream)]


def _spot(row: dict[str, str]) -> Spot:
    cycles, at_least, continued = {}, {}, []
    for name in WORKFLOWS:
        text = row[f"{name} cycles"]
        if text.startswith(AT_LEAST):
            at_least[name] = int(text.removeprefix(AT_LEAST))
        elif text:
            cycles[name] = int(text.removeprefix(CONTINUED))
            continued += [name] if text.startswith(CONTINUED) else []
    reasons = {WORKFLOWS[0]: row["why nothing fits"]} if row["why nothing fits"] else {}
    place = row["model"], row["array"], int(row["batch"]), int(row["context"])
    return Spot(*place, cycles, at_least, tuple(continued), reasons)


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


def format_situations(served: Sequence[Served]) -> str:
    """The gains of the searched mapping, a line a situation and array."""
    if not served:
        return ""
    names = [each.workflow for each in next(iter(by_case(served).values())) if each.workflow != SEARCHED]
    lines = [
        "Fewer cycles of the searched mapping than each named workflow takes for the whole situation; -: does not fit"
    ]
    for model in dict.fromkeys(each.model for each in served):
        heading = f"{model:<14}{'situation':<13}{'cycles':>16}" + "".join(f"{name:>13}" for name in names)
        lines += ["", heading, "-" * len(heading)]
        for (of_model, array, situation), case in by_case(served).items():
            if of_model != model:
                continue
            found, gains = case[-1], []
            best = best_named(case)
            for each in case[:-1]:
                gain = f"{1 - found.cycles / each.cycles:.1%}" if each.step_cycles else "-"
                gains.append(f"{'* ' if each is best else ''}{gain}")
            cycles = f"{found.cycles:,.0f}" if found.step_cycles else "does not fit"
            lines.append(f"{array:<14}{situation:<13}{cycles:>16}" + "".join(f"{gain:>13}" for gain in gains))
    lines += ["", "* the best of the named ones"]
    reasons = {each.reason for each in served if each.workflow == SEARCHED and each.reason}
    return "\n".join([*lines, *(f"does not fit: {reason}" for reason in sorted(reasons)), ""])
