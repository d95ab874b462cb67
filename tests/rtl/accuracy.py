"""`make accuracy`: runs all cases on the RTL and writes what came of it.

Into docs/accuracy.md (the page), docs/accuracy.csv (every case) and pe_sim/report/analysis/compared.json (what reports
say).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track

from pe_sim.report.analysis.envelope import PACKAGED, Compared
from pe_sim.schedule.collectives import KINDS
from tests.rtl.accuracy_page import SYNTHESIS_PES, page
from tests.rtl.arrays import VARIANTS, rtl_array
from tests.rtl.build import available
from tests.rtl.cases import OVERLAPS, STEP_ARRAYS, STEP_WORKFLOWS, Kind, cases_of, step_cases
from tests.rtl.compare import Comparison, compare
from tests.rtl.hardware import LEVEL_BITS, Hardware
from tests.rtl.synthesis import cells

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, TABLE = DOCS / "accuracy.md", DOCS / "accuracy.csv"


def main() -> int:
    """Compares, writes, and says what was written."""
    console = Console(stderr=True)
    reason = available()
    if reason:
        console.print(reason)
        return 1
    comparisons = [
        comparison
        for name in track(VARIANTS, "Arrays", console=console)
        for comparison in compare([*cases_of(name), *step_cases(name)])
    ]
    gates = {top: cells(top, parameters) for top, parameters in synthesis_parameters().items()}
    PACKAGED.write_text(compared(comparisons).to_json())
    TABLE.write_text(table(comparisons).to_csv(index=False, lineterminator="\n"))
    PAGE.write_text(page(comparisons, gates))
    console.print(f"Wrote {PAGE.name}, {TABLE.name} and {PACKAGED.name}: {len(comparisons)} cases.")
    return 0


def synthesis_parameters() -> dict[str, dict[str, int]]:
    """Bus and tree as the array `16-binary` has them."""
    hardware = Hardware.of(rtl_array("16-binary"))
    assert hardware.num_pes == SYNTHESIS_PES
    bus = {"PORTS": hardware.num_pes + 1, "LATENCY": hardware.bus_latency, "REQUEST": hardware.bus_request}
    tree = {
        "LEAVES": hardware.num_pes,
        "ARITY": hardware.arity,
        "LEVELS": hardware.num_levels,
        "LATENCIES": hardware.tree_latencies,
        "COMBINE": hardware.combine,
        "MERGE": hardware.merge,
        "BYTES": hardware.tree_bytes,
    }
    assert hardware.tree_latencies < 1 << LEVEL_BITS * hardware.num_levels
    return {"bus": bus, "reduction_tree": tree}


def table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """A row a case."""
    return pd.DataFrame(
        {
            "kind": [comparison.named.kind.value for comparison in comparisons],
            "array": [comparison.named.array for comparison in comparisons],
            "case": [comparison.named.name for comparison in comparisons],
            "simulated_cycles": [comparison.event_cycles for comparison in comparisons],
            "rtl_cycles": [comparison.rtl_cycles for comparison in comparisons],
            **{
                f"difference_{part}_cycles": [comparison.split[part] for comparison in comparisons]
                for part in ("compute", "memory", "bus", "tree")
            },
        }
    )


def compared(comparisons: Sequence[Comparison]) -> Compared:
    """What reports may say of these comparisons."""
    arrays = [rtl_array(name) for name in VARIANTS]
    num_pes = sorted({array.num_pes for array in arrays})
    arities = sorted({array.bus_tree.tree.arity for array in arrays})
    steps = [rtl_array(name) for name in STEP_ARRAYS]
    return Compared.model_validate(
        {
            "schema_version": 1,
            "machine": {"networks": ("bus_tree",), "arbitrations": ("fifo",), "memories": ("flat",)},
            "collective": {
                "kinds": tuple(KINDS),
                "num_pes": tuple(num_pes),
                "arities": tuple(arities),
                "overlaps": OVERLAPS,
                "worst_percent": _worst(comparisons, Kind.COLLECTIVE, Kind.BUS, Kind.TREE),
            },
            "gemm": {
                "overlaps": OVERLAPS,
                "worst_percent_whole_tiles": _worst(comparisons, Kind.WHOLE_TILES),
                "worst_percent_edge_tiles": _worst(comparisons, Kind.EDGE_TILES),
            },
            "step": {
                "families": ("llama",),
                "phases": ("decode", "prefill"),
                "workflows": STEP_WORKFLOWS,
                "batch_sizes": (1,),
                "groups": (1,),
                "num_pes": tuple(sorted({array.num_pes for array in steps})),
                "arities": tuple(sorted({array.bus_tree.tree.arity for array in steps})),
                "overlaps": OVERLAPS,
                "worst_percent": _worst(comparisons, Kind.STEP),
            },
        }
    )


def _worst(comparisons: Sequence[Comparison], *kinds: Kind) -> float:
    return max(comparison.percent for comparison in comparisons if comparison.named.kind in kinds)


if __name__ == "__main__":
    sys.exit(main())
