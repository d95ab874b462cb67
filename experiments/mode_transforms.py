"""What does it cost to change how a tensor is placed: every placement to every other, as the array grows?

Vectors of activations go from each placement to each other by the moves a mapping would insert; K and V of a layer go
from each layout of attention to each other as in a switch of mappings. Every transform is simulated by itself with
everything ready at cycle 0, and those of vectors are held against the closed form the mapper chooses ways by.

Writes a table (CSV) and a picture (PNG); both are committed as references under experiments/results.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import pe_sim as ps
from experiments.mode_transforms_plot import draw
from pe_sim.config.array import ArrayConfig
from pe_sim.engine.engines import engine_named
from pe_sim.errors import InputError
from pe_sim.graph.operators import AttentionShape, Operator
from pe_sim.graph.tensors import Tensor
from pe_sim.mapping.groups import PeGroups
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import BlockRun, Move, MoveKind, Value
from pe_sim.mapping.placement import Partial, Placement, Replicate, Root, Shard
from pe_sim.mapping.transforms import Step, Transforms
from pe_sim.mapping_search.switch_holdings import CachePart, cache_holding
from pe_sim.mapping_search.switch_schedule import Leg, switch_schedule
from pe_sim.mapping_search.switch_transfer import transfer
from pe_sim.schedule.builders import streamed
from pe_sim.schedule.moves import lower_move
from pe_sim.schedule.stages import Block, MessageStage, Schedule, Stage

RESULTS = Path(__file__).parent / "results"
NAME = "mode_transforms"
ARRAY, NUMBERS, QUICK = "bus-tree-256", (16, 64, 256, 1024, 4096), (16, 64)
COLUMNS = ("tensor", "PEs", "from", "to", "way", "cycles", "messages", "bytes")
PLACEMENTS: tuple[Placement, ...] = (
    Root(),
    Replicate(),
    Shard("hidden"),
    Shard("head"),
    Shard("batch"),
    Partial("sum"),
)
LAYOUTS = ("replicate", "head", "token", "batch")
FREE = "local"
CACHE_TOKENS = 128  # a sequence


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


@dataclass(frozen=True, slots=True)
class Point:
    """One transform.

    Args:
        way: the primitive moves, in order.
        cycles: simulated, from everything ready at 0.
        closed_form: what the mapper expects; None where it has none.
        messages, num_bytes: over bus and tree.
    """

    kind: Kind
    pes: int
    source: str
    target: str
    way: str
    cycles: int
    closed_form: int | None
    messages: int
    num_bytes: int

    def cells(self) -> list[str]:
        """A row of the CSV."""
        numbers = map(str, (self.cycles, self.messages, self.num_bytes))
        return [self.kind.name, str(self.pes), self.source, self.target, self.way, *numbers]


def array_of(pes: int) -> ArrayConfig:
    """The preset with another number of PEs; its floor plan, and so its `auto` latencies, grow with it."""
    return ps.load_array(ARRAY, overrides={"num_pes": pes})


def layouts_of(kind: Kind, array: ArrayConfig) -> Layouts:
    """How the tensor is cut on the array."""
    cached = CACHE_TOKENS if kind.is_cache else 0
    lengths = ((0 if kind.is_cache else 1,) * kind.rows, (cached,) * kind.rows)
    shape = AttentionShape(kind.heads, kind.heads, kind.head_dim, *lengths, causal_skip=True)
    groups = PeGroups.of_array(array.num_pes, 1, array.network.arity, kind.rows)
    return Layouts(groups, shape, array.dtypes, None)


def steps_of(transforms: Transforms, tensor: Tensor, source: Placement, target: Placement) -> tuple[Step, ...]:
    """The moves of a transform; where there is no way of its own, it goes through Replicate."""
    try:
        return transforms.steps([tensor], source, target)
    except ValueError:
        whole = Replicate()
        return (*transforms.steps([tensor], source, whole), *transforms.steps([tensor], whole, target))


def schedule_of(array: ArrayConfig, layouts: Layouts, tensor: Tensor, steps: Sequence[Step]) -> Schedule:
    """The moves one after another, the first one's senders ready at cycle 0."""
    operator = Operator("transform", (), (tensor,), tensor.size)
    stages: list[Stage] = []
    senders = layouts.is_member
    if steps and isinstance(steps[0].source, Shard):
        senders = layouts.pe_bytes(tensor, steps[0].source) > 0
    for key, step in enumerate(steps):
        if step.kind is MoveKind.LOCAL:
            continue
        ends = (Value(2 * key, tensor, step.source),), (Value(2 * key + 1, tensor, step.target),)
        move = Move(operator, step.kind, "group", *ends, step.partial_dtype, step.combine)
        inputs = (len(stages) - 1,) if stages else ()
        stage = lower_move(move, inputs, len(stages), senders, array, layouts)
        fed_by = stages[-1] if stages else None
        stages.append(streamed(stage, array, fed_by) if isinstance(stage, MessageStage) else stage)
    return Schedule(array, (Block(tuple(stages), len(stages)),), (BlockRun(0, None),))


def vector_points(kind: Kind, array: ArrayConfig) -> list[Point]:
    """Every placement of a vector to every other."""
    layouts = layouts_of(kind, array)
    transforms = Transforms(array, layouts)
    tensor = Tensor("vector", "query", kind.heads * kind.head_dim)
    points = []
    for source in PLACEMENTS:
        for target in PLACEMENTS:
            if source == target:
                continue
            steps = steps_of(transforms, tensor, source, target)
            way = " + ".join(step.kind.value for step in steps)
            expected = transforms.cycles([tensor], steps)
            schedule = schedule_of(array, layouts, tensor, steps)
            points.append(_run(kind, (str(source), str(target)), way, schedule, expected))
    return points


def cache_points(kind: Kind, array: ArrayConfig) -> list[Point]:
    """Every layout of K and V to every other."""
    layouts = layouts_of(kind, array)
    dtype = array.dtypes.kv_cache
    holdings = {
        name: cache_holding(CachePart(0, kind.rows, layouts.attention_split(name)), 0, kind.rows, CACHE_TOKENS, dtype)
        for name in LAYOUTS
    }
    points = []
    for source in LAYOUTS:
        for target in LAYOUTS:
            if source != target:
                moved = transfer(holdings[source], holdings[target], array.num_pes)
                leg = Leg("cache", moved.sent, moved.rootward, 0, moved.received, moved.dropped)
                ends = tuple("Replicate" if name == "replicate" else f"Shard({name})" for name in (source, target))
                way = FREE if moved.is_empty else "multicasts"
                points.append(_run(kind, (ends[0], ends[1]), way, switch_schedule(array, [leg]), None))
    return points


def _run(kind: Kind, ends: tuple[str, str], way: str, schedule: Schedule, expected: int | None) -> Point:
    if not schedule.blocks[0].stages:
        return Point(kind, schedule.array.num_pes, *ends, way, 0, expected, 0, 0)
    trace = engine_named("fast")(schedule)
    messages = sum(use.messages for use in trace.traffic.values())
    num_bytes = sum(use.bytes for use in trace.traffic.values())
    return Point(kind, schedule.array.num_pes, *ends, way, trace.makespan_cycles, expected, messages, num_bytes)


def collect(numbers: Iterable[int], progress: Callable[[str], None] = lambda text: None) -> list[Point]:
    """All points, tensor by tensor."""
    arrays = [array_of(pes) for pes in numbers]
    points: list[Point] = []
    for kind in KINDS:
        for array in arrays:
            progress(f"{kind.name}, {array.num_pes} PEs")
            points += (cache_points if kind.is_cache else vector_points)(kind, array)
    return points


def write_table(points: Iterable[Point], path: Path) -> None:
    """The CSV."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(point.cells() for point in points)


def matrix(points: Iterable[Point], kind: Kind, pes: int) -> tuple[list[str], np.ndarray]:
    """Names of the placements, and cycles from each (rows) to each (columns); -1 on the diagonal."""
    mine = [point for point in points if point.kind is kind and point.pes == pes]
    names = list(dict.fromkeys(point.source for point in mine))
    cycles = np.full((len(names), len(names)), -1, dtype=np.int64)
    for point in mine:
        cycles[names.index(point.source), names.index(point.target)] = point.cycles
    return names, cycles


def numbers_of(points: Iterable[Point]) -> list[int]:
    """The numbers of PEs, in order."""
    return sorted({point.pes for point in points})


def format_points(points: Sequence[Point]) -> str:
    """The matrices for a terminal."""
    lines: list[str] = []
    for kind in KINDS:
        for pes in numbers_of(points):
            names, cycles = matrix(points, kind, pes)
            heading = f"{f'{kind.name}, {pes} PEs: from / to':<28}" + "".join(f"{name:>15}" for name in names)
            lines += [heading, "-" * len(heading)]
            for name, row in zip(names, cycles.tolist(), strict=True):
                lines.append(f"  {name:<26}" + "".join(f"{'' if each < 0 else f'{each:,}':>15}" for each in row))
            lines.append("")
    return "\n".join(lines)


def verdict(points: Sequence[Point]) -> str:
    """Whether every transform of a vector takes what the mapper expects; else the first ones that do not."""
    known = [point for point in points if point.closed_form is not None]
    wrong = [point for point in known if point.cycles != point.closed_form]
    if not wrong:
        return f"All {len(known)} transforms of vectors take what the mapper chooses their ways by, to the cycle."
    shown = [
        f"  {each.kind.name}, {each.pes} PEs, {each.source} -> {each.target}: {each.cycles}, not {each.closed_form}"
        for each in wrong
    ]
    return "\n".join([f"{len(wrong)} of {len(known)} transforms DIFFER from what the mapper expects:", *shown[:10]])


def findings(points: Sequence[Point]) -> str:
    """What the figures say, tensor by tensor: how the dearest and the cheapest transforms grow with N."""
    few, many = numbers_of(points)[0], numbers_of(points)[-1]
    lines = []
    for kind in KINDS:
        ends = {
            pes: {(point.source, point.target): point for point in points if (point.kind, point.pes) == (kind, pes)}
            for pes in (few, many)
        }
        paid = {names: point for names, point in ends[many].items() if point.cycles}
        free = len(ends[many]) - len(paid)
        cheap, dear = (pick(paid.values(), key=lambda point: point.cycles) for pick in (min, max))
        said = [
            f"{point.source} -> {point.target} ({point.way}) {before:,} to {point.cycles:,} cycles"
            for point, before in ((each, ends[few][each.source, each.target].cycles) for each in (cheap, dear))
        ]
        lines.append(
            f"{kind.name} ({kind.what}), {few} to {many:,} PEs: {free} of {len(ends[many])} transforms are free;"
            f" the cheapest other is {said[0]}, the dearest {said[1]}."
        )
    return "\n".join(["Findings", *(f"- {line}" for line in lines)])


def read_options() -> argparse.Namespace:
    """What the user asks for, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.mode_transforms",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""Shard(batch) of one row is one PE's; Shard(head) beyond one PE a head cuts the heads. What has no
way of its own goes through Replicate. Local: each PE already has what it needs (a slice, or zeros elsewhere).
Shard(token) is a layout of the cache alone: position p on PE p mod N.

For instance:
  python -m experiments.mode_transforms
  python -m experiments.mode_transforms --quick""",
    )
    parser.add_argument("--quick", action="store_true", help="16 and 64 PEs only, and no files")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the CSV and PNG (experiments/results)")
    parser.add_argument("--no-files", action="store_true", help="only print the tables")
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    """Simulates, prints and writes."""

    def progress(text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    points = collect(QUICK if options.quick else NUMBERS, progress)
    print(format_points(points), findings(points), verdict(points), sep="\n")
    if not (options.no_files or options.quick):
        options.out.mkdir(parents=True, exist_ok=True)
        write_table(points, options.out / f"{NAME}.csv")
        draw(
            {(kind.name, kind.what): [(n, *matrix(points, kind, n)) for n in NUMBERS] for kind in KINDS},
            options.out / f"{NAME}.png",
        )
        print(f"wrote {NAME}.csv and {NAME}.png in {options.out.name}")
    if any(point.closed_form not in (None, point.cycles) for point in points):
        raise SystemExit(1)


def main() -> None:
    """The command."""
    try:
        run(read_options())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
