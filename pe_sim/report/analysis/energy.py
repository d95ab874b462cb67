"""First-order energy of a step: a sum over its stages of events times what each costs on the array.

Counted, with the constants of the array's section `energy` (`pe_sim.config.arrays.technology` has the defaults and
sources):

- pe_matrix: the multiply-accumulates that PEs really execute: what several PEs compute, each of them pays for.
- pe_vector, root_vector: lanes of the vector units times the cycles they are busy for.
- pe_memory: bytes read from the PEs' local memories (every pass over a matrix counts), and written: the new KV rows on
  each PE that keeps them, and weights that are streamed, on every PE.
- pe_buffer: bytes that matrix and vector units take from the PEs' buffers and put there, messages that PEs send, and
  those they receive: of a broadcast every PE that listens writes it.
- root_memory: bytes read from the root's memory: embedding rows, and weights that are streamed.
- bus: the bytes of a message over all wire of the bus, whoever listens. tree: over the links that it takes, each as
  long as the floor plan says for its level. links: of any other interconnect, over the wire of each channel, and over
  a row and a column of the switch or router from which the message enters it.
- joints: elements that are added to others, or merged into softmax partials, on their way to a sum.
- static: the array's `static_watts` for as long as the step takes; 0 unless it is given.

Left out: wires inside a PE and between its units, control, clocks, requests and headers of messages, buffers and
arbiters of switches and routers, the crossing of the last router, end points that pass messages on, and the root's
buffer.

Energies are whole numbers of 0.0001 pJ, so that they add up to the same sum in whatever order and grouping.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.floorplan import bus_wire_pitches, tree_hop_pitches
from pe_sim.network.area import switch_sizes
from pe_sim.report.analysis.channels import distinct_stages
from pe_sim.schedule.stages import (
    MessageStage,
    PeStage,
    Resource,
    RootStage,
    RoutedStage,
    Schedule,
    Stage,
    Tag,
    TreeStage,
    terms_of,
)
from pe_sim.units import IntArray, exact_sum

UNITS_PER_PJ: Final = 10_000
_UNITS_PER_JOULE: Final = UNITS_PER_PJ * 10**12

PE_MATRIX, PE_VECTOR, PE_MEMORY, PE_BUFFER = "pe_matrix", "pe_vector", "pe_memory", "pe_buffer"
ROOT_VECTOR, ROOT_MEMORY = "root_vector", "root_memory"
BUS, TREE, LINKS, JOINTS, STATIC = "bus", "tree", "links", "joints", "static"
DYNAMIC: Final = (PE_MATRIX, PE_VECTOR, PE_MEMORY, PE_BUFFER, ROOT_VECTOR, ROOT_MEMORY, BUS, TREE, LINKS, JOINTS)
COMPONENTS: Final = (*DYNAMIC, STATIC)


@dataclass(frozen=True, eq=False, slots=True)
class Prices:
    """Energy of each kind of event on one array, in units of 0.0001 pJ.

    Args:
        mac: one multiply-accumulate, by dtype.
        operation: one lane of a vector unit for one cycle.
        local_read, local_write, root_read, buffer_read, buffer_write: one byte.
        bus: one byte sent over the bus.
        tree: by level, one byte over one link from that level upwards.
        channels: one byte over each channel; None where there are a bus and a tree.
        add, merge: one byte that joints add, or merge into softmax partials.
        arity: arity of the tree (no energy).
    """

    mac: Mapping[str, int]
    operation: int
    local_read: int
    local_write: int
    root_read: int
    buffer_read: int
    buffer_write: int
    bus: int
    tree: tuple[int, ...]
    channels: tuple[int, ...] | None
    add: int
    merge: int
    arity: int


def prices_of(array: ArrayConfig) -> Prices:
    """The prices of an array, its energy constants rounded to whole units."""
    energy, plan = array.energy, array.floorplan
    element_bytes = array.dtypes.partial.bits / 8
    bus, tree = 0, tuple[int, ...]()
    channels: tuple[int, ...] | None = None
    if array.network.is_graph:
        from pe_sim.network.topology.kinds import build_topology  # loads networkx

        topology = build_topology(array)
        lengths_mm = topology.channels.length_mm + switch_sizes(topology, array.area.switch_pitch_um).crossing_mm
        channels = tuple(_per_byte(energy.wire_pj_per_bit_mm * mm) for mm in lengths_mm.tolist())
    else:
        pitch_pj = energy.wire_pj_per_bit_mm * plan.pe_pitch_mm
        arity, levels = array.network.arity, array.bus_tree.tree.num_levels
        bus = _per_byte(pitch_pj * bus_wire_pitches(array.num_pes))
        tree = tuple(_per_byte(pitch_pj * tree_hop_pitches(level, arity)) for level in range(levels))
    return Prices(
        mac={dtype: _units(pj) for dtype, pj in energy.mac_pj.items()},
        operation=_units(energy.vector_pj),
        local_read=_per_byte(energy.local_read_pj_per_bit),
        local_write=_per_byte(energy.local_write_pj_per_bit),
        root_read=_per_byte(energy.root_read_pj_per_bit),
        buffer_read=_per_byte(energy.buffer_read_pj_per_bit),
        buffer_write=_per_byte(energy.buffer_write_pj_per_bit),
        bus=bus,
        tree=tree,
        channels=channels,
        add=_units(energy.joint_add_pj / element_bytes),
        merge=_units(energy.joint_softmax_pj / element_bytes),
        arity=array.network.arity,
    )


def stage_energy(stage: Stage, prices: Prices) -> dict[str, int]:
    """Energy of one run of a stage in units, by component; components without any may be missing."""
    match stage:
        case PeStage():
            return _on_pes(stage, prices)
        case RootStage():
            return {ROOT_MEMORY: stage.read_bytes * prices.root_read, ROOT_VECTOR: stage.operations * prices.operation}
        case TreeStage():
            return _reduction(stage, prices)
        case MessageStage():
            return _messages(stage, prices)
        case RoutedStage():
            return _routed(stage, prices)
    raise TypeError(stage)


def energy_units(stages: Iterable[tuple[Stage, int]], prices: Prices) -> dict[str, int]:
    """Dynamic energy in units, by component, of stages given with how often each runs."""
    found: Counter[str] = Counter(dict.fromkeys(DYNAMIC, 0))
    for stage, repeats in stages:
        for component, units in stage_energy(stage, prices).items():
            found[component] += repeats * units
    return dict(found)


def schedule_units(schedule: Schedule) -> int:
    """Total dynamic energy of a schedule in units of 0.0001 pJ."""
    return sum(energy_units(distinct_stages(schedule), prices_of(schedule.array)).values())


def energy_joules(schedule: Schedule, seconds: float) -> dict[str, float]:
    """Energy in joules, by component (all `COMPONENTS`), of a schedule that takes `seconds`."""
    units = energy_units(distinct_stages(schedule), prices_of(schedule.array))
    dynamic = {component: each / _UNITS_PER_JOULE for component, each in units.items()}
    return {**dynamic, STATIC: schedule.array.energy.static_watts * seconds}


def _units(pj: float) -> int:
    return round(pj * UNITS_PER_PJ)


def _per_byte(pj_per_bit: float) -> int:
    return _units(8 * pj_per_bit)


def _on_pes(stage: PeStage, prices: Prices) -> dict[str, int]:
    read, given, taken = stage.read_bytes, stage.output_bytes, stage.input_bytes
    found: dict[str, int] = {}
    matrix = stage.matrix
    if matrix is not None:
        found[PE_MATRIX] = exact_sum(matrix.macs) * prices.mac[matrix.dtype]
        read += exact_sum(matrix.read_bytes[stage.active])
        given, taken = given + exact_sum(matrix.output_bytes), taken + exact_sum(matrix.input_bytes)
    found[PE_MEMORY] = read * prices.local_read + stage.written_bytes * prices.local_write
    found[PE_BUFFER] = taken * prices.buffer_read + given * prices.buffer_write
    found[PE_VECTOR] = stage.operations * prices.operation
    return found


def _reduction(stage: TreeStage, prices: Prices) -> dict[str, int]:
    terms = terms_of(stage.active, stage.first_pe, stage.last_pe)
    combined = int((np.maximum(terms - 1, 0) * stage.num_bytes).sum())
    return {
        PE_BUFFER: int((terms * stage.num_bytes).sum()) * prices.buffer_read,
        TREE: _climb(stage, prices),
        JOINTS: combined * (prices.merge if stage.softmax else prices.add),
    }


def _climb(stage: TreeStage, prices: Prices) -> int:
    """Energy in units of a reduction's tree links: those above contributing PEs, up to the level of the result."""
    climbed = prices.tree[: stage.levels]
    scopes = (stage.active, stage.first_pe, stage.last_pe)
    links = _links(*(array.tobytes() for array in scopes), prices.arity, len(climbed))
    return sum(price * int((of_level * stage.num_bytes).sum()) for price, of_level in zip(climbed, links, strict=True))


@lru_cache(maxsize=256)  # the reductions of a model's layers come from few sets of PEs
def _links(active: bytes, first_pe: bytes, last_pe: bytes, arity: int, num_levels: int) -> tuple[IntArray, ...]:
    """(scopes,) number of links with a contributing PE below, by level; arrays are given as their bytes."""
    first, last = (np.frombuffer(bounds, dtype=np.int64) for bounds in (first_pe, last_pe))
    nodes = np.flatnonzero(np.frombuffer(active, dtype=np.bool_))
    scopes = np.searchsorted(first, nodes, side="right") - 1
    inside = (scopes >= 0) & (nodes < last[scopes])
    nodes, scopes = nodes[inside], scopes[inside]
    found: list[IntArray] = []
    for _ in range(num_levels):
        found.append(np.bincount(scopes, minlength=len(first)))
        nodes = nodes // arity
        distinct = np.ones(len(nodes), dtype=np.bool_)
        distinct[1:] = (nodes[1:] != nodes[:-1]) | (scopes[1:] != scopes[:-1])
        nodes, scopes = nodes[distinct], scopes[distinct]
    return tuple(found)


def _messages(stage: MessageStage, prices: Prices) -> dict[str, int]:
    sent = int(stage.num_bytes.sum())
    listening = (stage.last_pe - stage.first_pe)[stage.target]
    received = 0 if stage.to_root else int((stage.num_bytes * listening).sum())
    found = {PE_BUFFER: sent * prices.buffer_read if stage.from_pe else 0}
    if stage.channel is Resource.DOWNLINK:
        found[TREE] = _descent(stage.num_bytes, listening, prices)
    else:
        found[BUS] = sent * prices.bus
    return _with_received(found, stage.tag, sent, received, prices)


def _descent(num_bytes: IntArray, listening: IntArray, prices: Prices) -> int:
    """Energy in units of messages down the tree: over all links of the subtrees above the PEs that listen."""
    units = 0
    for level, price in enumerate(prices.tree):
        below = prices.arity**level
        links = np.where(listening > below, -(-listening // below), 0)
        units += price * int((num_bytes * links).sum())
    return units


def _routed(stage: RoutedStage, prices: Prices) -> dict[str, int]:
    assert prices.channels is not None
    hops = stage.hops
    carried = np.zeros(len(prices.channels), dtype=np.int64)
    np.add.at(carried, hops.channel, stage.num_bytes[hops.message])
    used = np.flatnonzero(carried).tolist()
    # Python's numbers: bytes times units may pass 2^63.
    units = sum(num_bytes * prices.channels[each] for each, num_bytes in zip(used, carried[used].tolist(), strict=True))
    sending = np.unique(hops.source * hops.num_messages + hops.message[hops.first_hop]) % max(hops.num_messages, 1)
    sent = int(stage.num_bytes[sending].sum())
    received = 0 if stage.to_pes is None else int(stage.num_bytes[hops.message[hops.last_hop]].sum())
    found = {
        LINKS: units,
        JOINTS: stage.combined_bytes * (prices.merge if stage.softmax else prices.add),
        PE_BUFFER: sent * prices.buffer_read if stage.from_pe else 0,
    }
    return _with_received(found, stage.tag, sent, received, prices)


def _with_received(
    found: dict[str, int], tag: Tag, sent_bytes: int, received_bytes: int, prices: Prices
) -> dict[str, int]:
    """`found` with what PEs write added: buffer writes, or for streamed weights memory writes (and root reads)."""
    if tag is Tag.WEIGHT_STREAM:
        found[PE_MEMORY] = received_bytes * prices.local_write
        found[ROOT_MEMORY] = sent_bytes * prices.root_read
    else:
        found[PE_BUFFER] += received_bytes * prices.buffer_write
    return found
