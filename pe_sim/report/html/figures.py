"""The figures of a page: takes a report, gives bars, tables and maps of PEs as plain models for the templates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pe_sim.errors import DOES_NOT_FIT
from pe_sim.report.analysis.channels import distinct_stages
from pe_sim.report.analysis.critical_path import counted
from pe_sim.report.analysis.metrics import BOUND_KINDS, LINK_KINDS
from pe_sim.report.analysis.timeline import operator_title
from pe_sim.report.palette import KIND_COLOURS, TAG_COLOURS
from pe_sim.report.step import GROUPS, StepFigures, cycles_by_kind, parts
from pe_sim.report.table import AREA_NAMES, ENERGY_NAMES, KIND_NAMES, RESOURCE_NAMES
from pe_sim.schedule.stages import PeStage
from pe_sim.units import format_bytes, format_count, format_seconds

# Paul Tol's light palette, for groups of operators.
_GROUP_COLOURS: Final = dict(
    zip(GROUPS, ("#77AADD", "#44BB99", "#EE8866", "#EEDD88", "#FFAABB", "#AAAA00", "#DDDDDD"), strict=True)
)
_KINDS: Final = (*BOUND_KINDS, "wait")
_MESSAGE_KINDS: Final = ("bus", "tree", "downlink", "network")
_UNITS: Final = {"_joules": "J", "_watts": "W", "_seconds": "s"}
_WORDS: Final = {"_joules": "energy", "_watts": "power", "_seconds": "time"}
_PREFIXES: Final = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))


def facts(report: StepFigures) -> list[Fact]:
    """The main figures of a report, shown large: latency, throughput, bound, energy, accuracy, memory if short."""
    kind, cycles = next(iter(cycles_by_kind(report).items()))
    joules = report.energy["total_joules"]
    envelope, shortage = report.envelope, report.shortage
    trust = {"exact": "exact", "within": f"within {envelope.percent} %", "outside": "not compared"}[envelope.level]
    return [
        Fact("latency", format_seconds(report.latency_seconds), f"{report.latency_cycles:,} cycles"),
        Fact("throughput", f"{report.tokens_per_second:,.1f}", "tokens/s"),
        Fact("bound by", KIND_NAMES[kind].removeprefix("the "), f"{cycles / report.latency_cycles:.1%} of the latency"),
        Fact("energy", quantity("_joules", joules / report.num_tokens), "a token, first order"),
        Fact("accuracy", trust, f"against {envelope.to_dict()['against']}"),
        *([Fact("memory", DOES_NOT_FIT, f"needs {shortage.times} what there is")] if shortage else []),
    ]


def time_by_part(reports: Mapping[str, StepFigures]) -> Bars:
    """Bars of the critical path, one for each report: operator groups, then tags; the longest latency is full width."""
    longest = max(report.latency_seconds for report in reports.values())
    return Bars(tuple(Bar(label, _latency(each), _part_segments(each, longest)) for label, each in reports.items()))


def time_by_cause(reports: Mapping[str, StepFigures]) -> Bars:
    """Bars of what limited the critical path, one for each report; the longest latency is full width."""
    longest = max(report.latency_seconds for report in reports.values())
    return Bars(
        tuple(
            Bar(label, _latency(each), _kind_segments(each, cycles_by_kind(each), longest))
            for label, each in reports.items()
        )
    )


def operators_by_cause(report: StepFigures) -> Bars:
    """Bars of what limited each operator on the critical path, one for each operator, all layers together."""
    cycles: dict[str, Counter[str]] = {operator.name: Counter() for operator in report.graph.distinct}
    for link, times in counted(report.critical_path()):
        cycles.setdefault(link.operator, Counter())[LINK_KINDS[link.resource]] += times * link.cycles
    longest = max((sum(kinds.values()) for kinds in cycles.values()), default=1)
    scale = longest / (report.array.clock_ghz * 1e9)
    found = [
        Bar(operator_title(name), _of_latency(report, sum(kinds.values())), _kind_segments(report, kinds, scale))
        for name, kinds in cycles.items()
        if kinds
    ]
    return Bars(tuple(found))


def part_table(report: StepFigures) -> Table:
    """A table of the parts of the critical path, whose sum is the latency."""
    total = report.latency_cycles
    rows = [
        (
            Cell(part.name),
            Cell("communication" if part.communication else "computation"),
            Cell(part.bound_by),
            number(part.cycles),
            percent(part.cycles / total),
        )
        for part in parts(report)
    ]
    foot = (*texts(("latency", "", "")), number(total), Cell("100.0%"))
    return Table(("part", "what", "bound by", "cycles", "share"), tuple(rows), 3, foot)


def traffic_table(report: StepFigures) -> Table:
    """A table of messages, bytes and channel cycles of every tag that was used."""
    rows = []
    for tag, use in report.traffic.items():
        if use.messages:
            size = number(use.bytes, format_bytes(use.bytes))
            rows.append(
                (Cell(tag), number(use.messages), size, number(use.busy_cycles), percent(report.tag_share(tag)))
            )
    last = "busiest channel" if report.array.network.is_graph else "of the latency"
    return Table(("tag", "messages", "bytes", "channel cycles", last), tuple(rows))


def channel_table(report: StepFigures) -> Table:
    """A table of the hottest channels."""
    rows = []
    for channel in report.channels.hottest():
        row = report.channels.row(channel)
        tags = sorted(row["by_tag"], key=lambda tag: -row["by_tag"][tag]["busy_cycles"])
        size = number(row["bytes"], format_bytes(row["bytes"]))
        names = (Cell(row["name"]), Cell(", ".join(tags)))
        rows.append((*names, number(row["messages"]), size, number(row["busy_cycles"]), percent(row["utilization"])))
    return Table(("channel", "busy with", "messages", "bytes", "busy cycles", "busy"), tuple(rows), 2)


def utilization_table(report: StepFigures) -> Table:
    """A table of busy over elapsed cycles of every resource."""
    rows = [(Cell(RESOURCE_NAMES.get(name, name)), percent(value)) for name, value in report.utilization.items()]
    return Table(("resource", "busy"), tuple(rows))


def memory_table(report: StepFigures) -> Table:
    """A table of bytes held and read, and of the batch and context that would fit."""
    rows = []
    for name, value in report.memory.items():
        is_size = "bytes" in name.split("_")
        words = name.replace("_per_pe", " per PE").replace("kv_", "KV ").replace("_len", " length").replace("_", " ")
        rows.append((Cell(words), number(value, format_bytes(value) if is_size else None)))
    return Table(("what", "size"), tuple(rows))


def energy_table(report: StepFigures) -> Table:
    """A table of joules by component."""
    energy = report.energy
    total = energy["total_joules"]
    rows = [
        (
            Cell(component(name)),
            number(joules, quantity("_joules", joules)),
            percent(joules / total if total else 0.0),
        )
        for name, joules in energy["by_component"].items()
    ]
    foot = (Cell("total"), Cell(quantity("_joules", total)), Cell("100.0%"))
    return Table(("component", "energy", "share"), tuple(rows), 1, foot)


def area_table(report: StepFigures) -> Table:
    """A table of square millimetres by component."""
    area = report.area
    total = area.total_mm2
    rows = [
        (
            Cell(AREA_NAMES.get(name, name.replace("_", " "))),
            number(size, quantity("_mm2", size)),
            percent(size / total if total else 0.0),
        )
        for name, size in area.by_component.items()
    ]
    foot = (Cell("total"), Cell(quantity("_mm2", total)), Cell("100.0%"))
    return Table(("component", "area", "share"), tuple(rows), 1, foot)


def energy_facts(report: StepFigures) -> list[tuple[str, str]]:
    """(name, value) of the report's energy figures other than the total."""
    others = {name: value for name, value in report.energy.items() if name != "total_joules"}
    return [
        (
            f"{name.removesuffix(_suffix(name))} {_WORDS.get(_suffix(name), '')}".replace("_", " "),
            quantity(name, float(value)),
        )
        for name, value in others.items()
        if isinstance(value, Real) and not isinstance(value, bool)
    ]


def operator_table(report: StepFigures) -> Table:
    """A table of the operators, all layers together; cycles are the sum of their spans in each layer."""
    return Table(
        ("operator", "distribution", "bound by", "layers", "flops", "bytes", "cycles"),
        tuple(_summed_operators(report)),
        3,
    )


def layer_table(report: StepFigures) -> Table:
    """A table of every operator of every layer."""
    rows = [
        (
            Cell(row.name),
            Cell(row.distribution),
            Cell(row.bound_by),
            number(row.layer, str(row.layer)) if row.layer is not None else Cell("", -1.0),
            number(row.flops, format_count(row.flops)),
            number(row.bytes, format_bytes(row.bytes)),
            number(row.start),
            number(row.end),
            number(row.cycles),
        )
        for row in report.operators
    ]
    heads = ("operator", "distribution", "bound by", "layer", "flops", "bytes", "start", "end", "cycles")
    return Table(heads, tuple(rows), 3)


def path_table(report: StepFigures) -> Table:
    """A table of the critical path by operator, stage and resource."""
    rows = [
        (
            Cell(operator_title(entry["operator"])),
            Cell(entry["stage"].replace("_", " ")),
            Cell(entry["resource"]),
            number(entry["count"]),
            number(entry["cycles"]),
            percent(entry["share"]),
        )
        for entry in report.bounds["critical_path"]
    ]
    return Table(("operator", "stage", "limited by", "times", "cycles", "share"), tuple(rows), 3)


def component(name: str) -> str:
    """The name of an energy component in words."""
    return ENERGY_NAMES.get(name, name.replace("_", " "))


def quantity(name: str, value: float) -> str:
    """A value as text with an SI prefix, in the unit that the end of `name` tells."""
    suffix = _suffix(name)
    if suffix == "_mm2":
        return f"{value:,.4g} mm²"
    if not suffix:
        return f"{value:,.6g}"
    scale, prefix = next(((s, p) for s, p in _PREFIXES if abs(value) >= s), _PREFIXES[-1] if value else _PREFIXES[0])
    return f"{value / scale:,.3g} {prefix}{_UNITS[suffix]}" if abs(value) < 1000 else f"{value:,.0f} {_UNITS[suffix]}"


def _suffix(name: str) -> str:
    return next((suffix for suffix in (*_UNITS, "_mm2") if name.endswith(suffix)), "")


def _latency(report: StepFigures) -> str:
    return f"{report.latency_cycles:,} cycles, {format_seconds(report.latency_seconds)}"


def _of_latency(report: StepFigures, cycles: int) -> str:
    return f"{cycles:,} cycles, {cycles / report.latency_cycles:.1%}"


def _part_segments(report: StepFigures, longest_seconds: float) -> tuple[Segment, ...]:
    scale = longest_seconds * report.array.clock_ghz * 1e9
    return tuple(
        Segment(
            part.name,
            f"{part.name}: {_of_latency(report, part.cycles)}",
            part.cycles / scale,
            TAG_COLOURS[part.name] if part.communication else _GROUP_COLOURS[part.name],
            part.communication,
        )
        for part in parts(report)
    )


def _kind_segments(report: StepFigures, cycles: Mapping[str, int], longest_seconds: float) -> tuple[Segment, ...]:
    scale = longest_seconds * report.array.clock_ghz * 1e9
    return tuple(
        Segment(
            KIND_NAMES[kind].removeprefix("the "),
            f"{KIND_NAMES[kind]}: {_of_latency(report, cycles[kind])}",
            cycles[kind] / scale,
            KIND_COLOURS[kind],
            kind in _MESSAGE_KINDS,
        )
        for kind in _KINDS
        if cycles.get(kind)
    )


def _summed_operators(report: StepFigures) -> Sequence[tuple[Cell, ...]]:
    sums: dict[str, dict[str, Any]] = {}
    for row in report.operators:
        mine = sums.setdefault(
            row.name, {"how": {}, "bound": Counter(), "times": 0, "flops": 0, "bytes": 0, "cycles": 0}
        )
        mine["how"][row.distribution] = None
        mine["bound"][row.bound_by] += row.cycles
        mine["times"] += 1
        for name in ("flops", "bytes", "cycles"):
            mine[name] += getattr(row, name)
    return [
        (
            Cell(name),
            Cell("/".join(filter(None, mine["how"]))),
            Cell(mine["bound"].most_common(1)[0][0]),
            number(mine["times"]),
            number(mine["flops"], format_count(mine["flops"])),
            number(mine["bytes"], format_bytes(mine["bytes"])),
            number(mine["cycles"]),
        )
        for name, mine in sums.items()
    ]


# ---- PEs as a grid of colours: takes a report, gives maps of how busy each PE was and what it holds and reads.


# From pale to dark in one hue, so that lightness alone tells values apart, in print as well.
_STOPS: Final = ((247, 251, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107))
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of adjacent PEs in a row of the grid that have the same value; sizes are in cells."""

    column: int
    row: int
    width: int
    colour: str
    text: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A grid of PEs, PE 0 at the upper left, then row by row; the colours go from 0 to `scale`."""

    title: str
    summary: str
    num_columns: int
    num_rows: int
    tiles: tuple[Tile, ...]
    scale: str


def scale_colours(steps: int = 16) -> tuple[str, ...]:
    """The colours of a heat map's scale in `steps` steps, from 0 to the largest value."""
    return tuple(_colour(step / (steps - 1)) for step in range(steps))


def heat_maps(report: StepFigures) -> tuple[HeatMap, ...]:
    """Maps of how busy memory ports, matrix and vector units were, and of bytes held and streamed in this step."""
    elapsed = max(report.latency_cycles, 1)
    busy = {
        "memory port busy": "pe_memory",
        "matrix unit busy": "pe_matrix",
        "vector unit busy": "pe_vector",
    }
    maps = [_heat_map(title, report.trace.pe_busy[unit] / elapsed, 1.0, _percent) for title, unit in busy.items()]
    held = report.footprint.weight_bytes_per_pe + report.footprint.kv_cache_bytes_per_pe
    capacity = float(report.footprint.capacity_bytes)
    maps.append(_heat_map("weights and KV cache held", held.astype(np.float64), capacity, format_bytes))
    streamed = _streamed(report)
    maps.append(_heat_map("streamed by matrix operators", streamed, float(streamed.max()), format_bytes))
    return tuple(maps)


def _streamed(report: StepFigures) -> FloatArray:
    """(PEs,) bytes that matrix operators read from the local memory of each PE."""
    num_bytes = np.zeros(report.array.num_pes)
    for stage, repeats in distinct_stages(report.schedule):
        if isinstance(stage, PeStage) and stage.matrix is not None:
            num_bytes += repeats * np.where(stage.active, stage.matrix.read_bytes, 0)
    return num_bytes


def _heat_map(title: str, values: FloatArray, scale: float, text_of: Callable[[float], str]) -> HeatMap:
    """A heat map of (PEs,) values, coloured from 0 to `scale`."""
    columns = math.ceil(math.sqrt(len(values)))
    most, least, mean = float(values.max()), float(values.min()), float(values.mean())
    alike = text_of(least) == text_of(most)
    summary = f"all PEs {text_of(most)}" if alike else f"{text_of(least)} to {text_of(most)}, mean {text_of(mean)}"
    texts = [text_of(value) for value in values.tolist()]
    shades = [_colour(value / scale if scale > 0 else 0.0) for value in values.tolist()]
    tiles = tuple(_tiles(texts, shades, columns))
    return HeatMap(title, summary, columns, math.ceil(len(values) / columns), tiles, text_of(scale))


def _tiles(texts: list[str], shades: list[str], columns: int) -> Iterator[Tile]:
    first = 0
    for pe in range(1, len(texts) + 1):
        row_ends = pe % columns == 0
        if pe == len(texts) or row_ends or texts[pe] != texts[first]:
            name = f"PE {first}" if pe == first + 1 else f"PEs {first}-{pe - 1}"
            yield Tile(first % columns, first // columns, pe - first, shades[first], f"{name}: {texts[first]}")
            first = pe


def _colour(share: float) -> str:
    place = min(max(share, 0.0), 1.0) * (len(_STOPS) - 1)
    below = min(int(place), len(_STOPS) - 2)
    mixed = (a + (b - a) * (place - below) for a, b in zip(_STOPS[below], _STOPS[below + 1], strict=True))
    return "#" + "".join(f"{round(part):02x}" for part in mixed)


def _percent(share: float) -> str:
    return f"{share:.1%}"


# ---- What the templates draw: tables, stacked bars, heat maps and texts, without a word of HTML.


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table.

    Args:
        text: the text that is shown.
        value: the number it is sorted by; None: it is sorted by its text.
        share: length (0..1) of a bar behind the number; None: no bar.
        strong: whether it is marked as the best.
    """

    text: str
    value: float | None = None
    share: float | None = None
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table that can be sorted by each column.

    Args:
        columns: heads; the first `text_columns` columns are texts, the others numbers.
        rows: each with a cell for every column.
        foot: a last row of sums that is not sorted; empty: none.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: int = 1
    foot: tuple[Cell, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar: `share` (0..1) of the whole scale, `striped` if it is communication."""

    name: str
    text: str
    share: float
    colour: str
    striped: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A stacked bar with its label and the text behind it."""

    label: str
    text: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars on one scale, with a legend of their segments."""

    bars: tuple[Bar, ...]

    @property
    def legend(self) -> tuple[Segment, ...]:
        """The first segment of each name, in the order of appearance."""
        found: dict[str, Segment] = {}
        for bar in self.bars:
            for segment in bar.segments:
                found.setdefault(segment.name, segment)
        return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Fact:
    """A main figure, shown large: its name, its value, and a line below."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A text to copy from the page, such as a resolved config."""

    title: str
    text: str


def number(value: float, text: str | None = None, share: float | None = None) -> Cell:
    """A cell that is sorted by `value`; its text, if not given, is the value with thousands separated."""
    return Cell(text if text is not None else f"{value:,}", float(value), share)


def texts(cells: Iterable[str]) -> tuple[Cell, ...]:
    """Cells of plain text."""
    return tuple(Cell(text) for text in cells)


def percent(share: float) -> Cell:
    """A cell that shows a share (0..1) in per cent, with a bar."""
    return Cell(f"{share:.1%}", share, max(0.0, min(1.0, share)))
