"""Cycles of a primitive move alone on an interconnect that is a graph: the measure by which transforms are chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.graph.operators import Tensor
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import MoveKind
from pe_sim.mapping.placement import Placement, Root
from pe_sim.network.collectives.algorithms import cycles_alone
from pe_sim.network.collectives.programs import Pattern
from pe_sim.network.interconnect import Interconnect, interconnect_of
from pe_sim.network.topology.topology import TAP
from pe_sim.units import BoolArray, ceil_div, total

_SERIAL = {MoveKind.SCATTER: "scatter", MoveKind.GATHER: "gather", MoveKind.ALL_GATHER: "all_gather"}


def routed_cycles(
    array: ArrayConfig,
    layouts: Layouts,
    tensors: Sequence[Tensor],
    kind: MoveKind,
    ends: tuple[Placement, Placement],
    *,
    partial_dtype: bool,
    softmax: bool,
) -> int:
    """Cycle at which a move completes when everything is ready at cycle 0 and nothing else runs.

    Args:
        ends: where the tensors are and where they go.
    """
    interconnect, names = interconnect_of(array), array.graph_network.collectives
    at_root = any(isinstance(end, Root) for end in ends)
    num_pes, groups = array.num_pes, layouts.groups
    if kind is MoveKind.REDUCE:
        payload = total(layouts.group_bytes(tensor, partial=partial_dtype) for tensor in tensors)
        pattern = _pattern(interconnect, layouts, at_root, groups.is_member, softmax=softmax)
        algorithm, name = "reduce", names.reduce
    elif kind in _SERIAL:
        shards = ends[1] if kind is MoveKind.SCATTER else ends[0]
        payload = total(layouts.pe_bytes(tensor, shards) for tensor in tensors)
        sends = payload > 0
        if kind is MoveKind.SCATTER:
            sends = sends & groups.is_member
        pattern = _pattern(interconnect, layouts, at_root, sends)
        algorithm, name = _SERIAL[kind], "serial"
    elif kind is MoveKind.BROADCAST:
        payload = total(layouts.group_bytes(tensor, partial=False) for tensor in tensors)
        pattern = _pattern(interconnect, layouts, at_root, payload > 0)
        algorithm, name = "broadcast", names.broadcast
    else:
        payload = np.zeros(num_pes, dtype=np.int64)
        payload[groups.lowest] = total(layouts.group_bytes(tensor, partial=False) for tensor in tensors)
        pattern = _pattern(interconnect, layouts, True, payload > 0)
        algorithm, name = "gather", "serial"
    return cycles_alone(algorithm, name, interconnect, pattern, payload)


def all_gather_bound(array: ArrayConfig, layouts: Layouts, tensors: Sequence[Tensor], source: Placement) -> int:
    """Least cycles of one message from each PE to all others: those in which all comes in at one PE.

    A whole all-gather has a hop for every two PEs: where this bound is more than the other way takes, its own cycles
    need not be worked out.
    """
    topology, pes = interconnect_of(array).topology, layouts.groups.members[: int(layouts.groups.living[0])]
    sent = total(layouts.pe_bytes(tensor, source) for tensor in tensors)[pes]
    into = topology.edges[topology.edges[:, 1] == pes[0], 2]
    if (into == TAP).any() or not len(into):
        return 0
    channels = topology.channels
    fastest = ceil_div(sent[1:], int(channels.bytes_per_cycle[into].max())) + int(channels.overhead_cycles[into].min())
    return int(fastest[sent[1:] > 0].sum()) // len(into)


def _pattern(
    interconnect: Interconnect, layouts: Layouts, at_root: bool, sends: BoolArray, *, softmax: bool = False
) -> Pattern:
    first, last = layouts.groups.first_pe, layouts.groups.first_pe + layouts.groups.size
    return Pattern.of_scopes(interconnect, first, last, sends, at_root=at_root, softmax=softmax)
