"""Why one mapping is faster than another: takes two reports of one step, gives what differs, operator by operator.

Cycles are those of the critical paths, which add up to the latencies; so the differences add up to theirs.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pe_sim.errors import InputError
from pe_sim.notebook import Table, card
from pe_sim.report.analysis.critical_path import counted
from pe_sim.report.report import Report
from pe_sim.report.step import GROUPS, OTHER, group_of
from pe_sim.report.table import emit, make_table
from pe_sim.units import format_bytes

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table as RichTable

WORK: Final = "work"
WIDTH: Final = 400  # no wrapping
NOTEBOOK_ROWS: Final = 12
_Key = tuple[str, str]  # operator; work, or the tag of its messages


@dataclass(frozen=True, slots=True)
class Difference:
    """How one operator's work, or its messages of one tag, differ between two mappings, all layers together.

    Args:
        operator: by its name in the graph.
        part: work, or a tag of the traffic.
        distributions: of the operator in the first and in the other mapping; joined by `/` where layers differ.
        cycles: on the critical path of the first mapping and of the other.
        num_bytes: sent in either mapping, summed over the channels that carried them; 0 for work.
    """

    operator: str
    part: str
    distributions: tuple[str, str]
    cycles: tuple[int, int]
    num_bytes: tuple[int, int]

    @property
    def saved_cycles(self) -> int:
        """Cycles of the critical path that the first mapping takes less than the other; negative if it takes more."""
        return self.cycles[1] - self.cycles[0]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The differences between two mappings, the largest first; their cycles add up to that of the latencies.

    Args:
        names: of the first workflow and of the other.
        latencies: cycles of both.
        differences: one for each operator's work or messages that differ.
    """

    names: tuple[str, str]
    latencies: tuple[int, int]
    differences: tuple[Difference, ...]

    @property
    def saved_cycles(self) -> int:
        """Cycles that the first workflow takes less than the other; negative if it takes more."""
        return self.latencies[1] - self.latencies[0]

    def headline(self) -> str:
        """One sentence that tells which workflow is faster, and by how much."""
        first, other = self.names
        if self.saved_cycles == 0:
            return f"{first} and {other} take as long: {self.latencies[0]:,} cycles"
        quick, slow = (first, other) if self.saved_cycles > 0 else (other, first)
        least, most = min(self.latencies), max(self.latencies)
        saved = f"{most - least:,} cycles less than {slow}"
        return f"{quick} takes {saved} ({least:,} of {most:,}, {1 - least / most:.1%} less)"

    def render(self, most: int | None = None) -> str:
        """The table as plain text; differences beyond the `most` largest are summed up in one line."""
        text = io.StringIO()
        emit(self.tables(most), text, width=WIDTH)
        return text.getvalue()

    def tables(self, most: int | None = None) -> list[RichTable]:
        """The table for a terminal, in a list; differences beyond the `most` largest are summed up in one line."""
        shown = list(self.differences[:most])
        rows = [_cells(difference) for difference in shown]
        rest = self.differences[len(shown) :]
        if rest:
            saved = sum(difference.saved_cycles for difference in rest)
            rows.append((f"{len(rest)} more", "", "", "", "", f"{-saved:+,}", "", ""))
        latencies = tuple(f"{cycles:,}" for cycles in self.latencies)
        rows.append(("latency", "", "", *latencies, f"{-self.saved_cycles:+,}", "", ""))
        title = f"{self.headline()}; cycles of the critical path, all layers together, - is what {self.names[0]} saves"
        return [make_table(title, *self._columns, rows=rows, text_columns=3)]

    @property
    def _columns(self) -> tuple[str, ...]:
        first, other = self.names
        return ("operator", "part", "distribution", first, other, "difference", f"bytes {first}", f"bytes {other}")

    def to_frame(self) -> DataFrame:
        """A pandas.DataFrame with a row for each difference."""
        from pandas import DataFrame  # heavy, and only needed here

        return DataFrame([_flat(difference) for difference in self.differences])

    def to_dict(self) -> dict[str, Any]:
        """The explanation as a JSON-ready dict."""
        return {
            "workflows": list(self.names),
            "latency_cycles": list(self.latencies),
            "differences": [_flat(difference) for difference in self.differences],
        }

    def _repr_html_(self) -> str:
        """HTML of the headline and the table for a notebook."""
        rows = [_cells(difference) for difference in self.differences]
        return card(self.headline(), tables=[Table(self._columns, rows, text_columns=3, most=NOTEBOOK_ROWS)])


def explain(first: Report, other: Report) -> Explanation:
    """Where the critical paths of two reports differ in cycles, and what each sends in bytes, by operator.

    Raises:
        InputError: the reports are not of the same step of the same model.
    """
    if (first.model, first.step) != (other.model, other.step):
        raise InputError(
            "only mappings of the same step of the same model can be explained by each other",
            path="other",
            given=f"{other.model.name}, {other.step.phase}",
            expected=f"{first.model.name}, {first.step.phase}, with the same lengths",
        )
    reports = (first, other)
    cycles = [_path_cycles(report) for report in reports]
    sent = [_sent_bytes(report) for report in reports]
    placed = [_distributions(report) for report in reports]
    found = [
        Difference(
            operator,
            part,
            (placed[0].get(operator, ""), placed[1].get(operator, "")),
            (cycles[0][operator, part], cycles[1][operator, part]),
            (sent[0][operator, part], sent[1][operator, part]),
        )
        for operator, part in dict.fromkeys([*cycles[0], *cycles[1], *sent[0], *sent[1]])
    ]
    order = _order(first)
    differing = [one for one in found if len(set(one.cycles)) > 1 or len(set(one.num_bytes)) > 1]
    differing.sort(key=lambda one: (-abs(one.saved_cycles), order.get(one.operator, len(order)), one.part))
    return Explanation(
        (first.workflow.name, other.workflow.name), (first.latency_cycles, other.latency_cycles), tuple(differing)
    )


def _path_cycles(report: Report) -> Counter[_Key]:
    cycles: Counter[_Key] = Counter()
    for link, times in counted(report.critical_path()):
        cycles[link.operator, link.tag or WORK] += times * link.cycles
    return cycles


def _sent_bytes(report: Report) -> Counter[_Key]:
    use, spans = report.trace.channel_use, report.trace.spans
    sent: Counter[_Key] = Counter()
    for stage, tag, num_bytes in zip(use.stage.tolist(), use.tag.tolist(), use.num_bytes.tolist(), strict=True):
        sent[spans[stage].operator, use.tags[tag]] += num_bytes
    return sent


def _distributions(report: Report) -> dict[str, str]:
    found: dict[str, dict[str, None]] = {}
    for row in report.operators:
        found.setdefault(row.name, {})[row.distribution] = None
    return {name: "/".join(filter(None, distributions)) for name, distributions in found.items()}


def _order(report: Report) -> dict[str, int]:
    """Rank of each operator's group in `GROUPS`, by operator name: the order of reports."""
    groups = {operator.name: group_of(operator) for operator in report.graph.distinct}
    return {name: GROUPS.index(groups.get(name, OTHER)) for name in groups}


def _cells(one: Difference) -> tuple[str, ...]:
    first, other = one.distributions
    where = first if first == other else f"{first or '-'} / {other or '-'}"
    cycles = tuple(f"{cycles:,}" if cycles else "-" for cycles in one.cycles)
    sizes = tuple(format_bytes(size) if size else "-" for size in one.num_bytes)
    return one.operator, one.part, where, *cycles, f"{-one.saved_cycles:+,}" if one.saved_cycles else "=", *sizes


def _flat(one: Difference) -> dict[str, Any]:
    row: dict[str, Any] = {"operator": one.operator, "part": one.part}
    for name, pair in _pairs(one):
        row |= {f"{name}_first": pair[0], f"{name}_other": pair[1]}
    return row | {"saved_cycles": one.saved_cycles}


def _pairs(one: Difference) -> Iterable[tuple[str, Sequence[object]]]:
    yield "distribution", one.distributions
    yield "cycles", one.cycles
    yield "bytes", one.num_bytes
