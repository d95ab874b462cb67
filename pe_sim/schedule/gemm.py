"""The schedule of one GEMM alone on one PE."""

from __future__ import annotations

import numpy as np

from pe_sim.config.array import ArrayConfig
from pe_sim.errors import InputError
from pe_sim.mapping.placed import BlockRun
from pe_sim.schedule.matrix import gemm_work
from pe_sim.schedule.stages import Block, PeStage, Resource, Schedule


def gemm_schedule(array: ArrayConfig, rows: int, inner: int, outer: int) -> Schedule:
    """A (rows, inner) by (outer, inner) GEMM on the lowest living PE, everything else idle.

    Raises:
        InputError: a size is not positive.
    """
    for name, size in (("m", rows), ("k", inner), ("n", outer)):
        if size < 1:
            raise InputError("a GEMM's sizes are positive", path=name, given=size, expected="an int >= 1")
    first = np.zeros(array.num_pes, dtype=np.int64)
    first[min(set(range(array.num_pes)).difference(array.dead_pes))] = 1
    matrix = gemm_work(array, rows * first, inner * first, outer * first)
    stage = PeStage("gemm", "gemm", "", (), 0, Resource.PE_MATRIX, first > 0, np.zeros_like(first), matrix)
    return Schedule(array, (Block((stage,), 1),), (BlockRun(0, None),))
