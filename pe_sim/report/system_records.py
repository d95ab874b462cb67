"""What a report of several arrays is made of: plain records of a plan that was resolved and of what ran."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pe_sim.config.plan import StagePlan
from pe_sim.schedule.stages import Schedule
from pe_sim.trace import Trace


@dataclass(frozen=True, eq=False, slots=True)
class PassWork:
    """A distinct pass: what an array does in it, and what it takes alone."""

    schedule: Schedule
    trace: Trace


@dataclass(frozen=True, slots=True)
class Line:
    """A pipeline of a plan with everything resolved.

    Args:
        stages: in order, each with its arrays, layers and degrees.
        sequences: of the batch.
        microbatches: parts in which they went through the stages.
    """

    stages: tuple[StagePlan, ...]
    sequences: range
    microbatches: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; layers and sequences as [first, one past the last)."""
        return {
            "sequences": [self.sequences.start, self.sequences.stop],
            "microbatches": self.microbatches,
            "stages": [_stage_to_dict(stage) for stage in self.stages],
        }


@dataclass(frozen=True, slots=True)
class ArrayHolding:
    """Bytes that an array keeps while the step runs.

    Args:
        rank, pipeline, stage: of the array, and where it works.
        weight_bytes, kv_cache_bytes: in all its PEs.
        peak_bytes_per_pe, capacity_bytes_per_pe: of its fullest PE, and what fits.
        root_bytes, root_capacity_bytes: at its root, and what fits.
    """

    rank: int
    pipeline: int
    stage: int
    weight_bytes: int
    kv_cache_bytes: int
    peak_bytes_per_pe: int
    capacity_bytes_per_pe: int
    root_bytes: int
    root_capacity_bytes: int

    def to_dict(self) -> dict[str, int]:
        """JSON-ready."""
        return asdict(self)


def _stage_to_dict(stage: StagePlan) -> dict[str, Any]:
    distinct = tuple(dict.fromkeys(stage.degrees))
    own = [{"dp": one.dp, "tp": one.tp, "cp": one.cp, "consecutive": one.consecutive} for one in distinct]
    layers = [stage.first_layer, stage.first_layer + stage.num_layers]
    degrees: Any = own[0] if len(own) == 1 else [own[distinct.index(one)] for one in stage.degrees]
    return {"arrays": list(stage.arrays), "layers": layers, "degrees": degrees}
