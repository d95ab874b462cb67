"""Several reports beside each other, as tables of a page: takes reports by their labels, a column or a row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pe_sim.config.network import GraphNetwork
from pe_sim.report.breakdown import GROUPS, cycles_by_kind, parts
from pe_sim.report.compare import Ranking
from pe_sim.report.html_figures import component, quantity
from pe_sim.report.html_models import Cell, Table, number, percent, texts
from pe_sim.report.report import Report
from pe_sim.report.table import RESOURCE_NAMES, process_words
from pe_sim.schedule.stages import Tag
from pe_sim.units import format_bytes, format_seconds


def subject(reports: Sequence[Report]) -> str:
    """What the reports have in common: model, array, step."""

    def common(of: Callable[[Report], str], otherwise: str) -> str:
        found = {of(report) for report in reports}
        return found.pop() if len(found) == 1 else otherwise

    model = common(lambda report: report.model.name, "several models")
    array = common(lambda report: f"{report.array.name} ({report.array.num_pes:,} PEs)", "several arrays")
    return f"{common(lambda report: report.step.phase, 'several phases')} of {model} on {array}"


def overview(reports: Mapping[str, Report], ranking: Ranking) -> Table:
    """A row a report, the best one strong."""
    rows = []
    best = ranking.marked[ranking.best]
    for (label, report), over in zip(reports.items(), ranking.over_best, strict=True):
        kind = next(iter(cycles_by_kind(report)))
        traffic = report.traffic.values()
        num_bytes = sum(use.bytes for use in traffic)
        joules, area = report.energy["per_token_joules"], report.area.total_mm2
        rows.append(
            (
                Cell(label, strong=label == best),
                Cell(kind),
                number(report.latency_cycles),
                number(report.latency_seconds, format_seconds(report.latency_seconds)),
                number(report.tokens_per_second, f"{report.tokens_per_second:,.2f}"),
                Cell("-") if over is None else number(over, f"{over:.3f}"),
                percent(_busiest(report)),
                number(sum(use.messages for use in traffic)),
                number(num_bytes, format_bytes(num_bytes)),
                number(joules, quantity("_joules", joules)),
                number(area, quantity("_mm2", area)),
                Cell(process_words(report.array)),
            )
        )
    heads = (
        "workflow",
        "bound by",
        "cycles",
        "latency",
        "tokens/s",
        "× best",
        "busiest",
        "messages",
        "bytes",
    )
    return Table((*heads, "energy/token", "area", "process"), tuple(rows), 2)


def part_differences(reports: Mapping[str, Report], best: str) -> Table:
    """Cycles of the critical path by part; of all but the best one also the difference from it."""
    cycles = {label: {part.name: part.cycles for part in parts(report)} for label, report in reports.items()}
    names = [name for name in (*GROUPS, *(tag.value for tag in Tag)) if any(name in each for each in cycles.values())]
    rows = []
    for name in names:
        least = cycles[best].get(name, 0)
        rows.append((Cell(name), *(_against(each.get(name, 0), least) for each in cycles.values())))
    totals = [_against(report.latency_cycles, reports[best].latency_cycles) for report in reports.values()]
    return Table(("part", *_heads(reports, best)), tuple(rows), 1, (Cell("latency"), *totals))


def traffic(reports: Mapping[str, Report]) -> Table:
    """Messages and bytes by tag."""
    rows = []
    for tag in Tag:
        uses = [report.traffic[tag.value] for report in reports.values()]
        if any(use.messages for use in uses):
            cells = [number(use.bytes, f"{use.messages:,} / {format_bytes(use.bytes)}") for use in uses]
            rows.append((Cell(tag.value), *cells))
    return Table(("tag", *reports), tuple(rows))


def utilization(reports: Mapping[str, Report]) -> Table:
    """Busy over elapsed of each resource that any of the reports has."""
    names = dict.fromkeys(name for report in reports.values() for name in report.utilization)
    rows = []
    for name in names:
        values = [report.utilization.get(name) for report in reports.values()]
        cells = [Cell("-", -1.0) if value is None else percent(value) for value in values]
        rows.append((Cell(RESOURCE_NAMES.get(name, name)), *cells))
    return Table(("resource", *reports), tuple(rows))


def energy(reports: Mapping[str, Report]) -> Table:
    """Joules by component."""
    found = {label: report.energy for label, report in reports.items()}
    names = dict.fromkeys(name for each in found.values() for name in each["by_component"])
    rows = []
    for name in names:
        joules = [each["by_component"].get(name, 0.0) for each in found.values()]
        rows.append((Cell(component(name)), *(number(value, quantity("_joules", value)) for value in joules)))
    totals = texts(quantity("_joules", each["total_joules"]) for each in found.values())
    return Table(("component", *reports), tuple(rows), 1, (Cell("total"), *totals))


def _busiest(report: Report) -> float:
    """Of an array with one bus its bus, else the hottest channel."""
    on_graph = isinstance(report.array.network, GraphNetwork)
    return float(report.bounds["network_cycles" if on_graph else "bus_cycles"]) / max(report.latency_cycles, 1)


def _heads(reports: Mapping[str, Report], best: str) -> list[str]:
    return [f"{label} (best)" if label == best else label for label in reports]


def _against(value: int, best: int) -> Cell:
    difference = value - best
    return number(value, f"{value:,} ({difference:+,})" if difference else f"{value:,}")
