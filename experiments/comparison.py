"""What all comparisons with published figures share: a row of the table, and arrays that stand for other machines."""

from __future__ import annotations

from dataclasses import dataclass

import pe_sim as ps
from pe_sim.config.arrays.array import ArrayConfig


@dataclass(frozen=True, slots=True)
class Row:
    """One published figure beside ours.

    Args:
        source: who published it.
        case: what was measured.
        unit: of both figures.
        published: their figure.
        formula: what theirs follows from; a figure nobody published is a prediction of this formula, and says so.
        ours: the figure of this simulator.
        reason: where the difference comes from, or what makes them equal.
    """

    source: str
    case: str
    unit: str
    published: float
    formula: str
    ours: float
    reason: str

    @property
    def is_predicted(self) -> bool:
        """Whether nobody measured the figure: the source's own constants give it."""
        return self.formula.startswith("predicted")

    @property
    def ratio(self) -> float:
        """Ours over theirs."""
        return self.ours / self.published


def single_pe(
    *,
    clock_ghz: float = 1.0,
    outputs: int,
    depth: int,
    pipeline_cycles: int,
    bytes_per_cycle: int,
    overlap: int = 1,
    buffer_bytes: int = 2**30,
) -> ArrayConfig:
    """One PE in fp16 whose memory and bus deliver alike, without latencies of memory, bus and tree.

    Args:
        outputs, depth: dot products and multipliers of each.
        pipeline_cycles: from the operands of a dot product to its result.
        bytes_per_cycle: what memory and bus deliver.
    """
    overrides = {
        "name": "equivalent",
        "num_pes": 1,
        "clock_ghz": clock_ghz,
        "overlap": overlap,
        "dtypes": dict.fromkeys(("weight", "activation", "kv_cache"), "fp16") | {"partial": "fp32"},
        "pe.matrix": {"outputs": outputs, "depth": depth, "latency_cycles": pipeline_cycles},
        "pe.memory": {
            "technology": "as delivered there",
            "capacity_bytes": 2**40,
            "bytes_per_cycle": bytes_per_cycle,
            "latency_cycles": 0,
        },
        "pe.buffer.capacity_bytes": buffer_bytes,
        "network.bus": {
            "bytes_per_cycle": bytes_per_cycle,
            "latency_cycles": 0,
            "overhead_cycles": 0,
        },
    }
    return ps.load_array("bus-tree-64", overrides=overrides)
