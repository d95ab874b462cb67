"""The report of several arrays for a person: takes a report, prints tables of a fixed width."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final, TextIO

from pe_sim.config.plans.plan import StagePlan
from pe_sim.config.systems.load import describe_system
from pe_sim.errors import DOES_NOT_FIT
from pe_sim.notebook import Table as HtmlTable
from pe_sim.notebook import card
from pe_sim.report.system.figures import SystemFigures
from pe_sim.report.system.metrics import Line
from pe_sim.report.system.time import KINDS, StageTime, without_layer
from pe_sim.report.table import (
    ENERGY_NAMES,
    RESOURCE_NAMES,
    emit,
    format_joules,
    make_table,
    pairs_table,
    process_words,
    setting_words,
)
from pe_sim.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN_PIECES: Final = 12
_SHOWN_STAGES: Final = 32
_SHOWN_TASKS: Final = 24
_SHOWN_CHANNELS: Final = 5
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
    tables = (
        pairs_table(summary_rows(report)),
        _stages_table(report),
        _path_table(report),
        _tasks_table(report),
        _traffic_table(report),
        _utilization_table(report),
        *_channels_table(report),
        _memory_table(report),
        _energy_table(report),
    )
    notes = [f"note: {note}" for note in report.notes]
    emit((*tables, *(f"ignored: {line}" for line in report.ignored), *notes), file)


def render_system_report(report: SystemFigures) -> str:
    """What `print_system_report` prints, as plain text."""
    text = io.StringIO()
    print_system_report(report, text)
    return text.getvalue()


def summary_rows(report: SystemFigures) -> list[tuple[str, str]]:
    """What was simulated, how long it took and why: (name, value) pairs."""
    model, system, fullest = report.model, report.system, report.fullest
    share = fullest.peak_bytes_per_pe / fullest.capacity_bytes_per_pe
    step = report.step.to_dict()
    return [
        ("model", f"{model.name}: {format_count(model.num_parameters)} parameters, {model.num_layers} layers"),
        *(("note", note) for note in (*model.notes, *system.notes)),
        ("system", describe_system(system)),
        ("plan", f"{report.plan.name}: {describe_lines(report.lines)}"),
        ("step", ", ".join(setting_words(name, value) for name, value in step.items())),
        ("workflow", f"{report.workflow.name}: {report.workflow.summary}"),
        ("engine", f"{report.engine}, overlap {', '.join(map(str, report.overlaps))}"),
        ("latency", f"{report.latency_cycles:,} cycles = {format_seconds(report.latency_seconds)}"),
        *([(DOES_NOT_FIT, report.shortage.problem)] if report.shortage else []),
        ("accuracy", report.envelope.one_line()),
        ("throughput", f"{report.tokens_per_second:,.2f} tokens/s"),
        ("bubbles", f"{report.bubble_share:.1%} of the arrays' time: filling, draining, waiting for others"),
        (
            "memory",
            f"{format_bytes(fullest.peak_bytes_per_pe)} of {format_bytes(fullest.capacity_bytes_per_pe)}"
            f" ({share:.1%}) in the fullest PE, of array {fullest.rank}",
        ),
    ]


def describe_lines(lines: Sequence[Line]) -> str:
    """Pipelines in words; those that are alike are said once."""
    counted = Counter(_line_words(line) for line in lines)
    return "; ".join(f"{count} pipelines, each {words}" if count > 1 else words for words, count in counted.items())


def _line_words(line: Line) -> str:
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
    total = max(report.latency_cycles, 1)
    shown = report.bubbles[:_SHOWN_STAGES]
    several = len(report.lines) > 1
    rows = [_stage_row(report, each, several, total) for each in shown]
    title = "Where the arrays' time goes (mean of a stage's arrays)"
    if len(shown) < len(report.bubbles):
        title += f": {len(shown)} of {len(report.bubbles)} stages"
    columns = ("stage", "arrays", "layers", "busy", "exchanges", "fill", "drain", "waiting")
    return make_table(title, *columns, rows=rows)


def _stage_row(report: SystemFigures, each: StageTime, several: bool, total: int) -> Sequence[str]:
    stage = report.lines[each.pipeline].stages[each.stage]
    name = f"{each.pipeline}.{each.stage}" if several else f"{each.stage}"
    shares = [f"{cycles / total:.1%}" for cycles in (each.busy, each.exchange, each.fill, each.drain, each.wait)]
    last = stage.first_layer + stage.num_layers - 1
    return (name, ranks_words(stage.arrays), f"{stage.first_layer}-{last}", *shares)


def ranks_words(ranks: Iterable[int]) -> str:
    """Ranks with those that follow one another as a range: 0-3, 8."""
    ordered = sorted(ranks)
    runs = [[rank for _, rank in run] for _, run in groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _path_table(report: SystemFigures) -> Table:
    """The critical path by kind, and by name over all stages; the parts add up to the latency."""
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
    """Passes and exchanges, layers and stages together."""
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
    rows = [
        (
            row["name"],
            f"{row['messages']:,}",
            format_bytes(row["bytes"]),
            f"{row['busy_cycles']:,}",
            f"{row['utilization']:.1%}",
        )
        for row in (table.row(channel) for channel in table.hottest(_SHOWN_CHANNELS))
    ]
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


def _energy_table(report: SystemFigures) -> Table:
    energy, tokens = report.energy, report.num_tokens
    total = energy["total_joules"]
    rows = [
        (ENERGY_NAMES[name], format_joules(joules), f"{joules / total:.1%}")
        for name, joules in energy["by_component"].items()
        if joules
    ]
    rows.append(("total", format_joules(total), "100.0%"))
    rows.append(("a token" if tokens > 1 else "the token", format_joules(energy["per_token_joules"]), ""))
    rows.append(("average power", f"{energy['average_watts']:,.1f} W", ""))
    processes = ", ".join(dict.fromkeys(process_words(report.system.arrays[each.rank]) for each in report.holdings))
    return make_table(f"Energy (first order, {processes}, without the links)", "part", "energy", "share", rows=rows)


def system_card(report: SystemFigures) -> str:
    """What a notebook shows: the summary, and how every stage spends the step."""
    total = max(report.latency_cycles, 1)
    several = len(report.lines) > 1
    heads = ("stage", "arrays", "layers", "busy", "exchanges", "fill", "drain", "waiting")
    rows = [_stage_row(report, each, several, total) for each in report.bubbles]
    title = f"{report.step.phase} of {report.model.name} on {report.system.name}"
    below = [*(f"ignored: {line}" for line in report.ignored), *(f"note: {line}" for line in report.notes)]
    return card(title, summary_rows(report), [HtmlTable(heads, rows, text_columns=3, most=_SHOWN_STAGES)], below)
