"""Several reports beside each other: takes reports, prints one table, the best marked and the difference explained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from pe_sim.errors import InputError
from pe_sim.report.step import GROUPS, StepFigures, parts
from pe_sim.report.table import emit, format_joules, make_table, process_words
from pe_sim.schedule.stages import Tag
from pe_sim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.table import Table

BEST_MARK = "* "
WIDTH = 400  # no wrapping: a column a report


def compare_table(
    reports: Sequence[StepFigures],
    labels: Sequence[str] | None = None,
    file: TextIO | None = None,
    unequal: Mapping[str, str] | None = None,
) -> None:
    """Prints the comparison to `file`, or to stdout.

    Args:
        reports: at least one; of those that fit the memories the one with the most tokens per second is the best, the
            first of equals.
        labels: what to call them; None: their workflows' names, with the arrays' where workflows repeat.
        file: where to.
        unequal: by label, what was not made equal to the others; it is shown and not ranked.

    Raises:
        InputError: no reports, or not one label for each.
    """
    names = list(labels) if labels is not None else _labels(reports)
    if not reports or len(names) != len(reports):
        raise InputError(
            f"{len(reports)} reports cannot be compared under {len(names)} labels",
            path="labels",
            expected="at least one report, and a label for each",
        )
    ranking = Ranking.of(reports, names, unequal or {})
    best, names = ranking.best, ranking.marked
    marked = [f"{BEST_MARK if index == best else '  '}{name}" for index, name in enumerate(names)]
    tables = [_overview(reports, marked, ranking)]
    if len(reports) > 1:
        note = f"cycles of the critical path; + and - against {names[best]}"
        tables.append(_time_table(f"Why: where the time goes ({note})", reports, marked, best))
        tables.append(_traffic_table("Why: messages / bytes by tag", reports, marked))
        tables.append(_channel_table("Why: the busiest channel, and what it was busy with", reports, marked))
    notes = [*ranking.notes, *(f"note: {note}" for note in cost_notes(reports))]
    notes += dict.fromkeys(f"note: {note}" for report in reports for note in report.model.notes)
    emit((*tables, *([""] if notes else []), *notes, *_accuracies(reports, names)), file, width=WIDTH)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best of several reports, and which of them are ranked at all.

    Args:
        best: index of the best: the most tokens per second, the first of equals, among those that fit the memories
            and are made equal, if there are any.
        marked: the label of each, followed by what is wrong with it.
        notes: a line for each report that does not fit or is not equal.
        over_best: latency of each over that of the best; None where it is not ranked.
    """

    best: int
    marked: list[str]
    notes: list[str]
    over_best: list[float | None]

    @classmethod
    def of(cls, reports: Sequence[StepFigures], labels: Sequence[str], unequal: Mapping[str, str]) -> Ranking:
        """The ranking of reports under their labels.

        Args:
            unequal: by label, what was not made equal to the others, in words.
        """
        aside = [bool(report.shortage) + (label in unequal) for label, report in zip(labels, reports, strict=True)]
        order = [(-aside[at], report.tokens_per_second, -at) for at, report in enumerate(reports)]
        best = -max(order)[2]
        seconds = reports[best].latency_seconds
        marked = [
            f"{label}{report.fit_mark}{' (NOT EQUAL)' if label in unequal else ''}"
            for label, report in zip(labels, reports, strict=True)
        ]
        notes = [
            f"{label}: {each.shortage.problem}" for label, each in zip(marked, reports, strict=True) if each.shortage
        ]
        notes += [f"{label}: {unequal[label]}" for label in labels if label in unequal]
        over = [
            report.latency_seconds / seconds if aside[at] <= aside[best] else None for at, report in enumerate(reports)
        ]
        return cls(best, marked, notes, over)


def _overview(reports: Sequence[StepFigures], names: Sequence[str], ranking: Ranking) -> Table:
    rows = []
    all_have_a_bus = not any(report.array.network.is_graph for report in reports)
    arrays_differ = len({(report.array.name, report.array.num_pes) for report in reports}) > 1
    processes_differ = len({report.array.process for report in reports}) > 1
    for name, report, over in zip(names, reports, ranking.over_best, strict=True):
        busy = report.bounds["bus_cycles" if all_have_a_bus else "network_cycles"]
        messages = sum(use.messages for use in report.traffic.values())
        num_bytes = sum(use.bytes for use in report.traffic.values())
        rows.append(
            (
                name,
                f"{report.latency_cycles:,}",
                format_seconds(report.latency_seconds),
                f"{report.tokens_per_second:,.2f}",
                "-" if over is None else f"{over:.3f}",
                format_joules(report.energy["per_token_joules"]),
                f"{busy / report.latency_cycles:.1%}",
                f"{messages:,}",
                format_bytes(num_bytes),
                *((f"{report.array.num_pes:,}", f"{report.area.total_mm2:,.0f}") if arrays_differ else ()),
                *((process_words(report.array),) if processes_differ else ()),
            )
        )
    busiest = "bus busy" if all_have_a_bus else "busiest channel"
    columns = ["  workflow", "cycles", "latency", "tokens/s", "x best", "energy/token", busiest, "messages", "bytes"]
    columns += ["PEs", "mm2"] if arrays_differ else []
    columns += ["process"] if processes_differ else []
    where, phase = subject(reports)
    said = "nothing fits; {} would be the best" if reports[ranking.best].shortage else "{} is the best"
    return make_table(f"{where}, {phase} ({said.format(BEST_MARK.strip())})", *columns, rows=rows)


def _time_table(title: str, reports: Sequence[StepFigures], names: Sequence[str], best: int) -> Table:
    cycles = [{part.name: part.cycles for part in parts(report)} for report in reports]
    ordered = [name for name in (*GROUPS, *(tag.value for tag in Tag)) if any(name in column for column in cycles)]
    columns = [[column.get(part, 0) for column in cycles] for part in ordered]
    columns.append([report.latency_cycles for report in reports])
    rows = [
        (part, *(_against(value, values[best], is_best=index == best) for index, value in enumerate(values)))
        for part, values in zip([*ordered, "latency"], columns, strict=True)
    ]
    return make_table(title, "part", *names, rows=rows)


def _traffic_table(title: str, reports: Sequence[StepFigures], names: Sequence[str]) -> Table:
    used = [tag.value for tag in Tag if any(report.traffic[tag.value].messages for report in reports)]

    def cell(report: StepFigures, tag: str) -> str:
        use = report.traffic[tag]
        return f"{use.messages:,} / {format_bytes(use.bytes)}" if use.messages else "-"

    return make_table(title, "tag", *names, rows=[(tag, *(cell(report, tag) for report in reports)) for tag in used])


def _channel_table(title: str, reports: Sequence[StepFigures], names: Sequence[str]) -> Table:
    """A table with a column for each report: its busiest channel, how long it was held, and for which tags."""
    hottest = [report.channels.row(channel) for report in reports for channel in report.channels.hottest(1) or [0]]
    used = [tag.value for tag in Tag if any(tag.value in row["by_tag"] for row in hottest)]

    def cells(tag: str) -> list[str]:
        return [f"{row['by_tag'][tag]['busy_cycles']:,}" if tag in row["by_tag"] else "-" for row in hottest]

    rows = [("channel", *(row["name"] if row["busy_cycles"] else "-" for row in hottest))]
    rows += [(tag, *cells(tag)) for tag in used]
    rows.append(("busy cycles", *(f"{row['busy_cycles']:,}" for row in hottest)))
    rows.append(("of the latency", *(f"{row['utilization']:.1%}" for row in hottest)))
    return make_table(title, "busy with", *names, rows=rows)


def cost_notes(reports: Sequence[StepFigures]) -> list[str]:
    """Notes on comparing energies and areas: where processes differ, and what was assumed."""
    arrays = [report.array for report in reports]
    found = [array.cost_basis_note for array in arrays]
    if len({array.process for array in arrays}) > 1:
        processes = dict.fromkeys(f"{array.name} {process_words(array)}" for array in arrays)
        found.append(f"energy and area are of different processes: {', '.join(processes)}")
    return list(dict.fromkeys(filter(None, found)))


def _accuracies(reports: Sequence[StepFigures], names: Sequence[str]) -> list[str]:
    """One line on accuracy for all reports, or one for each group of reports with the same envelope."""
    sharing: dict[str, list[str]] = {}
    for name, report in zip(names, reports, strict=True):
        sharing.setdefault(report.envelope.one_line(), []).append(name)
    if len(sharing) == 1:
        return ["", f"accuracy: {next(iter(sharing))}"]
    return ["", *(f"accuracy of {', '.join(those)}: {line}" for line, those in sharing.items())]


def _against(value: int, best: int, *, is_best: bool) -> str:
    if is_best:
        return f"{value:,}"
    return "=" if value == best else f"{value - best:+,}"


def _labels(reports: Sequence[StepFigures]) -> list[str]:
    names = [report.workflow.name for report in reports]
    if len(set(names)) == len(names):
        return names
    return [f"{report.workflow.name} on {report.array.name}" for report in reports]


def subject(reports: Sequence[StepFigures], pes: str = "{} PEs") -> tuple[str, str]:
    """What the reports share: the model on its array (number of PEs formatted by `pes`), and the phase."""

    def common(texts: Iterable[str], otherwise: str) -> str:
        found = set(texts)
        return found.pop() if len(found) == 1 else otherwise

    model = common((report.model.name for report in reports), "several models")
    arrays = (report.array for report in reports)
    array = common((f"{array.name} ({pes.format(array.num_pes)})" for array in arrays), "several arrays")
    return f"{model} on {array}", common((report.step.phase for report in reports), "several phases")
