"""The report of several arrays for a person: takes a report, prints tables of a fixed width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final, TextIO

from pe_sim.config.plans.plan import StagePlan
from pe_sim.config.systems.load import describe_system
from pe_sim.notebook import Table as HtmlTable
from pe_sim.notebook import card
from pe_sim.report.system.figures import SystemFigures
from pe_sim.report.system.metrics import Pipeline
from pe_sim.report.system.time import KINDS, StageTime, without_layer
from pe_sim.report.table import (
    RESOURCE_NAMES,
    SHOWN_CHANNELS,
    channel_cells,
    common_rows,
    emit,
    energy_table,
    make_table,
    pairs_table,
)
from pe_sim.units import format_bytes

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN_PIECES: Final = 12
_SHOWN_STAGES: Final = 32
_SHOWN_TASKS: Final = 24
_STAGE_COLUMNS: Final = ("stage", "arrays", "layers", "busy", "exchanges", "fill", "drain", "waiting")
_SYSTEM_NAMES: Final = {
    "arrays": "arrays (with passes)",
    "links_mean": "links (mean of all channels)",
    "links_max": "the hottest link",
}
_PATH_NAMES: Final = {
    "pass": "passes on arrays",
    "exchange": "exchanges over links",
    "queue": "exchanges waiting for links",
}


def print_system_report(report: SystemFigures, file: TextIO | None = None) -> None:
    """Prints the whole report to `file`, or to stdout."""
    arrays = [report.system.arrays[each.rank] for each in report.holdings]
    tables = (
        pairs_table(summary_rows(report)),
        _stages_table(report),
        _path_table(report),
        _tasks_table(report),
        _traffic_table(report),
        _utilization_table(report),
        *_channels_table(report),
        _memory_table(report),
        energy_table(report, arrays, ", without the links"),
    )
    emit((*tables, *_lines_below(report)), file)


def _lines_below(report: SystemFigures) -> list[str]:
    return [*(f"ignored: {line}" for line in report.ignored), *(f"note: {note}" for note in report.notes)]


def summary_rows(report: SystemFigures) -> list[tuple[str, str]]:
    """What was simulated, how long it took and why: (name, value) pairs."""
    system, fullest = report.system, report.fullest
    share = fullest.peak_bytes_per_pe / fullest.capacity_bytes_per_pe
    where = {"system": describe_system(system), "plan": f"{report.plan.name}: {describe_lines(report.lines)}"}
    return [
        *common_rows(report, system.notes, where, ", ".join(map(str, report.overlaps))),
        ("bubbles", f"{report.bubble_share:.1%} of the arrays' time: filling, draining, waiting for others"),
        (
            "memory",
            f"{format_bytes(fullest.peak_bytes_per_pe)} of {format_bytes(fullest.capacity_bytes_per_pe)}"
            f" ({share:.1%}) in the fullest PE, of array {fullest.rank}",
        ),
    ]


def describe_lines(lines: Sequence[Pipeline]) -> str:
    """The pipelines in words; equal ones are described once, with their number."""
    counted = Counter(_line_words(line) for line in lines)
    return "; ".join(f"{count} pipelines, each {words}" if count > 1 else words for words, count in counted.items())


def _line_words(line: Pipeline) -> str:
    runs = [(words, len(list(run))) for words, run in groupby(map(_degrees_words, line.stages))]
    if len(runs) == 1:
        words, count = runs[0]
        stages = f"{count} stages of {words}" if count > 1 else f"1 stage of {words}"
    else:
        stages = "stages of " + ", ".join(f"{words} ({count} times)" if count > 1 else words for words, count in runs)
    return f"{stages}, {line.microbatches} microbatch{'es' if line.microbatches != 1 else ''}"


def _degrees_words(stage: StagePlan) -> str:
    distinct = tuple(dict.fromkeys(stage.degrees))
    if len(distinct) > 1:
        return f"{len(distinct)} kinds of degrees on {len(stage.arrays)} arrays"
    degrees = {"dp": distinct[0].dp, "tp": distinct[0].tp, "cp": distinct[0].cp}
    return " x ".join(f"{name} {size}" for name, size in degrees.items() if size > 1) or "one array"


def _stages_table(report: SystemFigures) -> Table:
    shown = report.bubbles[:_SHOWN_STAGES]
    title = "Where the arrays' time goes (mean of a stage's arrays)"
    if len(shown) < len(report.bubbles):
        title += f": {len(shown)} of {len(report.bubbles)} stages"
    return make_table(title, *_STAGE_COLUMNS, rows=[_stage_row(report, each) for each in shown])


def _stage_row(report: SystemFigures, each: StageTime) -> Sequence[str]:
    stage, total = report.lines[each.pipeline].stages[each.stage], max(report.latency_cycles, 1)
    name = f"{each.pipeline}.{each.stage}" if len(report.lines) > 1 else f"{each.stage}"
    shares = [f"{cycles / total:.1%}" for cycles in (each.busy, each.exchange, each.fill, each.drain, each.wait)]
    last = stage.first_layer + stage.num_layers - 1
    return (name, ranks_words(stage.arrays), f"{stage.first_layer}-{last}", *shares)


def ranks_words(ranks: Iterable[int]) -> str:
    """Ranks in words, with consecutive ones as a range: 0-3, 8."""
    ordered = sorted(ranks)
    runs = [[rank for _, rank in run] for _, run in groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _path_table(report: SystemFigures) -> Table:
    """A table of the critical path by kind, and by name over all stages; the parts add up to the latency."""
    total = max(report.latency_cycles, 1)
    entries = report.bounds["critical_path"]
    rows = []
    for kind in KINDS:
        mine = [entry for entry in entries if entry["kind"] == kind]
        if not mine:
            continue
        cycles = sum(entry["cycles"] for entry in mine)
        rows.append((_PATH_NAMES[kind], "", f"{cycles:,}", f"{cycles / total:.1%}"))
        by_name: Counter[str] = Counter()
        count: Counter[str] = Counter()
        for entry in mine:
            by_name[entry["name"]] += entry["cycles"]
            count[entry["name"]] += entry["count"]
        ordered = sorted(by_name, key=lambda name: (-by_name[name], name))[:_SHOWN_PIECES]
        rows += [
            (f"  {name}", f"{count[name]:,}", f"{by_name[name]:,}", f"{by_name[name] / total:.1%}") for name in ordered
        ]
    rows.append(("latency", "", f"{report.latency_cycles:,}", "100.0%"))
    return make_table("Critical path", "part", "times", "cycles", "share", rows=rows)


def _tasks_table(report: SystemFigures) -> Table:
    """A table of passes and exchanges by name, summed over layers and stages."""
    total = max(report.latency_cycles, 1)
    count: Counter[tuple[str, str]] = Counter()
    cycles: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    alone: dict[tuple[str, str], list[int]] = {}
    for row in report.tasks:
        key: tuple[str, str] = (row.kind, without_layer(row.name))
        count[key] += row.count
        cycles[key] += row.total_cycles
        sizes[key] += row.bytes
        alone.setdefault(key, []).append(row.cycles)
    arrays = len(report.holdings)
    rows = []
    for key in sorted(alone, key=lambda each: (each[0] != "pass", -cycles[each], each))[:_SHOWN_TASKS]:
        kind, name = key
        share = f"{cycles[key] / total / arrays:.1%}" if kind == "pass" else ""
        least, most = min(alone[key]), max(alone[key])
        longest = f"{most:,}" if least == most else f"{least:,}-{most:,}"
        rows.append((f"{kind}: {name}", f"{count[key]:,}", longest, share, format_bytes(sizes[key])))
    columns = ("what", "times", "cycles alone", "of the arrays' time", "messages of")
    return make_table("Passes and exchanges", *columns, rows=rows)


def _traffic_table(report: SystemFigures) -> Table:
    links = report.link_traffic
    rows = [
        (
            tag,
            f"{use.messages - links[tag].messages:,}",
            format_bytes(use.bytes - links[tag].bytes),
            f"{links[tag].messages:,}",
            format_bytes(links[tag].bytes),
            f"{links[tag].busy_cycles:,}",
        )
        for tag, use in report.traffic.items()
        if use.messages
    ]
    columns = ("tag", "in arrays", "bytes", "over links", "bytes", "link cycles")
    return make_table("Traffic", *columns, rows=rows)


def _utilization_table(report: SystemFigures) -> Table:
    rows = [
        (_SYSTEM_NAMES.get(name, f"  {RESOURCE_NAMES.get(name, name)}"), f"{value:.1%}")
        for name, value in report.utilization.items()
    ]
    return make_table("Utilization (mean over the arrays that take part)", "resource", "busy", rows=rows)


def _channels_table(report: SystemFigures) -> list[Table]:
    table = report.links
    if table is None:
        return []
    rows = [channel_cells(table.row(channel)) for channel in table.hottest(SHOWN_CHANNELS)]
    title = f"Hottest links ({len(rows)} of {len(table):,} channels)"
    return [make_table(title, "channel", "messages", "bytes", "busy cycles", "busy", rows=rows)]


def _memory_table(report: SystemFigures) -> Table:
    memory, fullest = report.memory, report.fullest
    share = fullest.peak_bytes_per_pe / fullest.capacity_bytes_per_pe
    roots = max(report.holdings, key=lambda each: each.root_bytes / each.root_capacity_bytes)
    rows = [
        ("weights in all PEs", format_bytes(memory["weight_bytes"])),
        ("KV cache in all PEs", format_bytes(memory["kv_cache_bytes"])),
        ("read in this step", format_bytes(memory["bytes_read"])),
        (f"fullest PE, of array {fullest.rank}", f"{format_bytes(fullest.peak_bytes_per_pe)} = {share:.1%}"),
        ("memory of a PE there", format_bytes(fullest.capacity_bytes_per_pe)),
        (f"fullest root, of array {roots.rank}", f"{format_bytes(roots.root_bytes)}"),
        ("memory of the root there", format_bytes(roots.root_capacity_bytes)),
    ]
    return make_table("Memory", "what", "size", rows=rows)


def system_card(report: SystemFigures) -> str:
    """HTML of the report for a notebook: the summary, and how every stage spends the step."""
    rows = [_stage_row(report, each) for each in report.bubbles]
    title = f"{report.step.phase} of {report.model.name} on {report.system.name}"
    stages = HtmlTable(_STAGE_COLUMNS, rows, text_columns=3, most=_SHOWN_STAGES)
    return card(title, summary_rows(report), [stages], _lines_below(report))
