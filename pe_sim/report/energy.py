"""First-order dynamic energy of a step: what is read from memories and multiplied, times published constants.

Counted, each with a constant somebody published:

- pe_matrix: the multiply-accumulates of all matrix operators and of attention, as if each were computed once.
- pe_memory: bytes the matrix operators read from the PEs' local memories (every pass counts), and those written:
  the new KV rows, and weights that are streamed, on every PE.
- root_memory: bytes read from the root's memory: embedding rows, and weights that are streamed.

Left out, because no cited constant covers it: wires (bus, tree and the way inside a PE), activations in the PEs'
buffers, vector units, control, clocks, and everything static (leakage, refresh). The total is therefore a lower
bound, good for comparing mappings that read and multiply different amounts, not for sizing a power supply.
"""

from __future__ import annotations

from typing import Final

from pe_sim.config.array import ArrayConfig
from pe_sim.config.dtypes import BITS, Dtypes
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import KvAppend, Linear, Scores, Values
from pe_sim.report.timeline import Timeline
from pe_sim.schedule.stages import PeStage, RootStage, Tag
from pe_sim.trace import TagTraffic

_PJ: Final = 1e-12

# Horowitz, ISSCC 2014 ("Computing's energy problem"), 45 nm, pJ of one multiply plus one add.
MAC_PJ: Final[dict[str, float]] = {
    "fp32": 3.7 + 0.9,
    "fp16": 1.1 + 0.4,
    "bf16": 1.1 + 0.4,  # taken as fp16: same width, shorter mantissa, hence an upper bound
    "fp8": 1.1 + 0.4,  # no constant published there: fp16's, an upper bound
    "int8": 0.2 + 0.03,
    "int4": 0.2 + 0.03,  # no constant published there: int8's, an upper bound
}

# FGDRAM, MICRO 2017, HBM2 stages, pJ/bit: a read that stays at the bank pays activate/precharge 0.11 and the cell's
# read or write 0.44; an external one 3.6 in all (to the bank group 1.01, global I/O 1.23, TSV 0.5, interposer 0.3).
DRAM_BANK_PJ_PER_BIT: Final = 0.11 + 0.44
DRAM_EXTERNAL_PJ_PER_BIT: Final = 3.6

# Horowitz, ISSCC 2014: 100 pJ for 64 bits of a 1 MB SRAM, for arrays whose local memory is SRAM.
SRAM_PJ_PER_BIT: Final = 100 / 64


def energy_joules(graph: OperatorGraph, timeline: Timeline) -> dict[str, float]:
    """Joules by component, in the order of the module's docstring."""
    array = timeline.schedule.array
    streamed = timeline.trace.traffic.get(Tag.WEIGHT_STREAM.value, TagTraffic()).bytes
    root_bytes = streamed + sum(stage.read_bytes for stage in timeline.stages if isinstance(stage, RootStage))
    matrices = (stage for stage in timeline.stages if isinstance(stage, PeStage) and stage.matrix is not None)
    local_bytes = sum(int(stage.matrix.read_bytes[stage.active].sum()) for stage in matrices if stage.matrix)
    local_bytes += _written_bytes(graph, array.dtypes) + array.num_pes * streamed
    return {
        "pe_matrix": matrix_macs(graph) * mac_pj(array.dtypes) * _PJ,
        "pe_memory": 8 * local_bytes * local_pj_per_bit(array) * _PJ,
        "root_memory": 8 * root_bytes * DRAM_EXTERNAL_PJ_PER_BIT * _PJ,
    }


def matrix_macs(graph: OperatorGraph) -> int:
    """Multiply-accumulates of the matrices and of attention."""
    matrices = (operator for _, operator in graph.instances() if isinstance(operator, Linear | Scores | Values))
    return sum(operator.flops for operator in matrices) // 2


def mac_pj(dtypes: Dtypes) -> float:
    """pJ of a MAC: quantised weights are widened to the activations' dtype, so the wider of the two multiplies."""
    wider = max(dtypes.activation.name, dtypes.weight.name, key=lambda name: (BITS[name], MAC_PJ[name]))
    return MAC_PJ[wider]


def local_pj_per_bit(array: ArrayConfig) -> float:
    """pJ of a bit of the PEs' memory: SRAM if its technology says so, else DRAM read at the bank."""
    return SRAM_PJ_PER_BIT if "sram" in array.pe.memory.technology.lower() else DRAM_BANK_PJ_PER_BIT


def _written_bytes(graph: OperatorGraph, dtypes: Dtypes) -> int:
    return sum(operator.num_bytes(dtypes) for _, operator in graph.instances() if isinstance(operator, KvAppend))
