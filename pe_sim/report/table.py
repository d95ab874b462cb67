"""The report for a person: takes a report, prints tables of a fixed width (the terminal's, where there is one)."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from pe_sim.config.arrays.array import ArrayConfig, describe_dead_pes
from pe_sim.errors import DOES_NOT_FIT
from pe_sim.report.step import StepFigures, StepResult, cycles_by_kind, parts
from pe_sim.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

WIDTH = 100
SHOWN_CHANNELS = 5
_SHOWN_TAGS = 3
KIND_NAMES = {
    "memory": "the PEs' local memory",
    "compute": "the PEs' matrix units",
    "vector": "the PEs' vector units",
    "bus": "the bus",
    "tree": "the reduction tree",
    "downlink": "the tree's downlink",
    "network": "the interconnect",
    "root": "the root",
    "wait": "waits that nothing explains",
}
RESOURCE_NAMES = {
    "bus": "bus",
    "tree": "tree (mean of its joints)",
    "downlink": "downlink (mean of its joints)",
    "network_mean": "all channels (mean)",
    "network_max": "the hottest channel",
    "pe_matrix": "PE matrix units (mean)",
    "pe_vector": "PE vector units (mean)",
    "pe_memory": "PE memory ports (mean)",
    "root_vector": "root vector unit",
    "root_memory": "root memory",
}

ENERGY_NAMES = {
    "pe_matrix": "PE matrix units",
    "pe_vector": "PE vector units",
    "pe_memory": "PE local memories",
    "pe_buffer": "PE buffers",
    "root_vector": "root vector unit",
    "root_memory": "root memory",
    "bus": "wires of the bus",
    "tree": "wires of the tree",
    "links": "wires of the channels",
    "joints": "joints: adding, merging",
    "static": "static",
}
AREA_NAMES = {
    "pe_matrix": "PE matrix units",
    "pe_vector": "PE vector units",
    "pe_memory": "PE local memories, all layers",
    "pe_buffer": "PE buffers",
    "joints": "joints",
    "switches": "switches and routers",
    "wires": "wires",
    "root": "root, without other dies",
}


def print_report(report: StepFigures, file: TextIO | None = None) -> None:
    """Prints the whole report to `file`, or to stdout."""
    tables = (
        pairs_table(summary_rows(report)),
        _breakdown_table(report),
        _traffic_table(report),
        _utilization_table(report),
        *_channel_tables(report),
        _bounds_table(report),
        _memory_table(report),
        energy_table(report, [report.array], "" if report.array.energy.static_watts else ", static power taken as 0"),
        _area_table(report),
    )
    notes = [*report.trace.notes, report.area.note, report.array.cost_basis_note]
    emit((*tables, *(f"note: {note}" for note in notes if note)), file)


def summary_rows(report: StepFigures) -> list[tuple[str, str]]:
    """The (name, value) pairs of the summary: what was simulated, how long it took and why."""
    array = report.array
    kind, cycles = next(iter(cycles_by_kind(report).items()))
    peak = report.footprint.weight_bytes_per_pe + report.footprint.kv_cache_bytes_per_pe
    described = f"{array.name}: {array.num_pes} PEs at {array.clock_ghz:g} GHz, {array.dtypes.weight.name} weights"
    return [
        *common_rows(report, array.network.notes, {"array": described}, f"{array.overlap}", _dead_rows(report)),
        ("bound by", f"{KIND_NAMES[kind]}: {cycles / report.latency_cycles:.1%} of the critical path"),
        (
            "memory",
            f"{format_bytes(int(peak.max()))} of {format_bytes(array.pe.memory.capacity_bytes)} in the fullest PE",
        ),
    ]


def common_rows(
    report: StepResult,
    notes: Iterable[str],
    where: Mapping[str, str],
    overlap: str,
    causes: Iterable[tuple[str, str]] = (),
) -> list[tuple[str, str]]:
    """The (name, value) pairs that all summaries begin with.

    Args:
        report: the report of the step.
        notes: notes on the machine.
        where: descriptions of the machine (and of the plan), by the names they are shown under.
        overlap: overlap level of the array or arrays.
        causes: pairs to put right after the latency.
    """
    model = report.model
    return [
        ("model", f"{model.name}: {format_count(model.num_parameters)} parameters, {model.num_layers} layers"),
        *(("note", note) for note in (*model.notes, *notes)),
        *where.items(),
        ("step", ", ".join(setting_words(name, value) for name, value in report.step.to_dict().items())),
        ("workflow", f"{report.workflow.name}: {report.workflow.summary}"),
        ("engine", f"{report.engine}, overlap {overlap}"),
        ("latency", f"{report.latency_cycles:,} cycles = {format_seconds(report.latency_seconds)}"),
        *causes,
        *([(DOES_NOT_FIT, report.shortage.problem)] if report.shortage else []),
        ("accuracy", report.envelope.one_line()),
        ("throughput", f"{report.tokens_per_second:,.2f} tokens/s"),
    ]


def _dead_rows(report: StepFigures) -> list[tuple[str, str]]:
    """A (name, value) pair that tells which PEs are dead and what that costs; empty if all are alive."""
    array, cost = report.array, report.degradation
    if not array.dead_pes:
        return []
    said = describe_dead_pes(array.dead_pes, array.num_pes)
    if cost is not None:
        said += f"; {cost['cycles_all_alive']:,} cycles with all alive: {cost['slowdown'] - 1:+.1%}"
    return [("dead PEs", said)]


def emit(parts_to_print: Iterable[RenderableType], file: TextIO | None, width: int = WIDTH) -> None:
    """Prints parts at the width of a terminal, or to anything else as plain text of at most `width` columns."""
    from rich.console import Console

    stream = file if file is not None else sys.stdout
    if stream.isatty():
        console = Console(file=stream, markup=False, emoji=False, highlight=False)
        for part in parts_to_print:
            console.print(part)
        return
    plain = io.StringIO()
    # An empty environment: variables that are meant for terminals must not change a file.
    writer = Console(
        file=plain, width=width, color_system=None, markup=False, emoji=False, highlight=False, _environ={}
    )
    for part in parts_to_print:
        writer.print(part)
    stream.write("".join(f"{line.rstrip()}\n" for line in plain.getvalue().splitlines()))


def make_table(title: str, *columns: str, rows: Iterable[Sequence[str]], text_columns: int = 1) -> Table:
    """A table whose first `text_columns` columns are texts and the others right-aligned numbers."""
    from rich.box import Box
    from rich.table import Table

    rule = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)  # a line under the head, nothing else
    table = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=rule,
        show_edge=False,
        pad_edge=False,
        min_width=max(60, len(title)),
    )
    for index, column in enumerate(columns):
        is_text = index < text_columns
        table.add_column(column, justify="left" if is_text else "right", overflow="fold", no_wrap=is_text)
    for row in rows:
        table.add_row(*row)
    return table


def pairs_table(rows: Iterable[tuple[str, str]]) -> Table:
    """A table of names and their values, without a head."""
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _breakdown_table(report: StepFigures) -> Table:
    total = report.latency_cycles
    found = parts(report)
    rows = []
    for communication, label in ((False, "computation"), (True, "communication")):
        chosen = [part for part in found if part.communication is communication]
        cycles = sum(part.cycles for part in chosen)
        rows.append((label, f"{cycles:,}", f"{cycles / total:.1%}", ""))
        rows += [(f"  {p.name}", f"{p.cycles:,}", f"{p.cycles / total:.1%}", p.bound_by) for p in chosen]
    rows.append(("latency", f"{total:,}", "100.0%", ""))
    return make_table("Where the time goes (critical path)", "part", "cycles", "share", "bound by", rows=rows)


def _traffic_table(report: StepFigures) -> Table:
    rows = [
        (tag, f"{use.messages:,}", format_bytes(use.bytes), f"{use.busy_cycles:,}", f"{report.tag_share(tag):.1%}")
        for tag, use in report.traffic.items()
        if use.messages
    ]
    last = "busiest channel" if report.array.network.is_graph else "of the latency"
    return make_table("Traffic", "tag", "messages", "bytes", "channel cycles", last, rows=rows)


def _utilization_table(report: StepFigures) -> Table:
    rows = [(_resource_name(report, name), f"{value:.1%}") for name, value in report.utilization.items()]
    return make_table("Utilization", "resource", "busy", rows=rows)


def _resource_name(report: StepFigures, name: str) -> str:
    levels = report.channels.level
    if report.array.network.is_graph and name in levels:
        count = levels.count(name)
        return f"{name} ({f'mean of {count:,} channels' if count > 1 else 'a channel'})"
    return RESOURCE_NAMES.get(name, name)


def _channel_tables(report: StepFigures) -> list[Table]:
    """Tables of the levels (on a graph of channels) and of the hottest channels with what they carried."""
    channels, tables = report.channels, []
    on_graph = report.array.network.is_graph
    if on_graph:
        levels = [
            (
                level,
                f"{row['channels']:,}",
                format_bytes(row["bytes"]),
                f"{row['utilization_mean']:.1%}",
                f"{row['utilization_max']:.1%}",
                _tag_shares(row),
            )
            for level, row in channels.by_level().items()
        ]
        columns = ("level", "channels", "bytes", "busy: mean", "hottest", "busy with")
        tables.append(make_table("Levels of the interconnect", *columns, rows=levels))
    hottest = [channels.row(channel) for channel in channels.hottest(SHOWN_CHANNELS)]
    rows = [(*channel_cells(row), _tag_shares(row)) for row in hottest]
    columns = ("channel", "messages", "bytes", "busy cycles", "busy", "busy with")
    title = (
        f"Hottest channels ({len(rows)} of {len(channels):,})" if on_graph else "Channels (tree: its busiest joints)"
    )
    return [*tables, make_table(title, *columns, rows=rows)]


def channel_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Cells for a channel: its name, messages, bytes, busy cycles and utilization."""
    busy = (f"{row['busy_cycles']:,}", f"{row['utilization']:.1%}")
    return (row["name"], f"{row['messages']:,}", format_bytes(row["bytes"]), *busy)


def _tag_shares(row: Mapping[str, Any]) -> str:
    """The tags that kept a channel busy, the longest first, with their shares."""
    tags = sorted(row["by_tag"].items(), key=lambda item: -item[1]["busy_cycles"])
    shares = [(tag, counts["busy_cycles"] / max(row["busy_cycles"], 1)) for tag, counts in tags]
    return ", ".join(tag if len(shares) == 1 else f"{tag} {share:.0%}" for tag, share in shares[:_SHOWN_TAGS])


def _bounds_table(report: StepFigures) -> Table:
    names = {"compute_cycles": "matrix unit of the busiest PE", "memory_cycles": "memory port of the busiest PE"}
    if report.array.network.is_graph:
        names["network_cycles"] = "the hottest channel"
    else:
        names |= {"bus_cycles": "bus", "tree_cycles": "tree (its busiest joints)"}
    total, bounds = report.latency_cycles, report.bounds
    rows = [(name, f"{bounds[key]:,}", f"{bounds[key] / total:.1%}") for key, name in names.items()]
    return make_table("Bounds on the latency", "busy", "cycles", "of the latency", rows=rows)


def _memory_table(report: StepFigures) -> Table:
    memory = report.memory
    share = memory["peak_bytes_per_pe"] / memory["capacity_bytes_per_pe"]
    rows = [
        ("weights (without the embedding table)", format_bytes(memory["weight_bytes"])),
        ("KV cache", format_bytes(memory["kv_cache_bytes"])),
        ("read in this step", format_bytes(memory["bytes_read"])),
        ("fullest PE", f"{format_bytes(memory['peak_bytes_per_pe'])} = {share:.1%}"),
        ("memory of a PE", format_bytes(memory["capacity_bytes_per_pe"])),
        ("root", format_bytes(memory["root_bytes"])),
        ("largest batch that fits", f"{memory['largest_batch_size']:,} sequences"),
        ("longest context that fits", f"{memory['longest_context_len']:,} tokens"),
    ]
    return make_table("Memory", "what", "size", rows=rows)


def energy_table(report: StepResult, arrays: Iterable[ArrayConfig], remark: str) -> Table:
    """A table of joules by component, in all and per token; the title has the processes and `remark`."""
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
    processes = ", ".join(dict.fromkeys(map(process_words, arrays)))
    return make_table(f"Energy (first order, {processes}{remark})", "part", "energy", "share", rows=rows)


def _area_table(report: StepFigures) -> Table:
    area = report.area
    rows = [
        (AREA_NAMES[name], f"{mm2:,.2f} mm2", f"{mm2 / area.total_mm2:.1%}")
        for name, mm2 in area.by_component.items()
        if mm2
    ]
    rows.append(("total", f"{area.total_mm2:,.2f} mm2", "100.0%"))
    rows.append(("a PE on its die", f"{area.pe_mm2:,.2f} of {area.pitch_mm2:,.2f} mm2", ""))
    return make_table(f"Area (first order, {process_words(report.array)})", "part", "area", "share", rows=rows)


def process_words(array: ArrayConfig) -> str:
    """The process of an array's logic in words, and whether it was assumed."""
    return f"{array.process} (assumed)" if "process" in array.assumed else array.process


def setting_words(name: str, value: object) -> str:
    """A setting of a step in words: `decode`, `batch_size 1`, `context_len 3..90`."""
    if isinstance(value, list):
        value = f"{min(value)}..{max(value)}"
    return f"{value}" if name == "phase" else f"{name} {value}"


def format_joules(joules: float) -> str:
    """Joules as text, with the prefix that leaves a digit before the point: 0.0021 -> '2.10 mJ'."""
    for scale, unit in ((1.0, "J"), (1e-3, "mJ"), (1e-6, "uJ"), (1e-9, "nJ")):
        if joules >= scale:
            return f"{joules / scale:,.2f} {unit}"
    return f"{joules * 1e12:,.2f} pJ"
