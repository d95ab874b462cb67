"""Metrics of interconnects, in closed form or counted on the graph; and arrays scaled to equal total wire."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from fractions import Fraction
from itertools import combinations
from typing import Any, Final, TypeVar

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.networks.network import Bus, Tree
from pe_sim.config.networks.shapes import Link, UserGraphShape, user_graph
from pe_sim.errors import InputError
from pe_sim.network.topology.assembly import Bisection
from pe_sim.network.topology.kinds import KINDS, build_topology, plan_of
from pe_sim.network.topology.topology import Channels, Topology
from pe_sim.notebook import Table, card
from pe_sim.units import BoolArray, IntArray

# ---- Metrics of graphs for which no closed form is known: the diameter by counting, the bisection by trying cuts.


EXACT_PES: Final = 8  # up to 70 halves, each of which takes a maximum flow
EXACT_NODES: Final = 64
SPECTRAL_NODES: Final = 1024  # eigenvectors of so many nodes take a second
SWAP_PES: Final = 64


def count_diameter(topology: Topology) -> int:
    """Diameter in hops: channels on the longest of the shortest paths between two PEs; a bus counts as one."""
    num_pes, nodes = topology.num_pes, len(topology.nodes)
    after: list[list[int]] = [[] for _ in range(nodes)]
    for source, target, _ in topology.edges.tolist():
        after[source].append(target)
    is_bus = topology.is_bus.tolist()
    everyone = (1 << num_pes) - 1
    heard = [1 << node if node < num_pes else 0 for node in range(nodes)]  # the PEs whose news have come here
    fresh = {node: heard[node] for node in range(num_pes)}
    hops = 0
    while any(mask != everyone for mask in heard[:num_pes]):
        assert fresh, "some PE does not reach another"
        hops += 1
        arrivals: dict[int, int] = {}
        for node, mask in fresh.items():
            for target in after[node]:
                arrivals[target] = arrivals.get(target, 0) | mask
        for bus in [node for node in arrivals if is_bus[node]]:  # its listeners hear it in the same hop
            mask = arrivals.pop(bus)
            for target in after[bus]:
                arrivals[target] = arrivals.get(target, 0) | mask
        fresh = {}
        for node, mask in arrivals.items():
            news = mask & ~heard[node]
            if news:
                heard[node] |= news
                fresh[node] = news
    return hops


def search_bisection(topology: Topology) -> Bisection:
    """The least width between two halves of the PEs: exact for few PEs, else that of the best cut that was tried."""
    if topology.num_pes < 2:
        return Bisection(0, "exact")
    if topology.num_pes <= EXACT_PES and len(topology.nodes) <= EXACT_NODES:
        return Bisection(_exact(topology), "exact: the maximum flow between every two halves")
    cuts = _Cuts(topology)
    tried = [cuts.width(cuts.improved(half)) for half in _candidates(topology)]
    return Bisection(min(tried), f"upper bound: the best of {len(tried)} cuts (orders of the PEs, spectral, swaps)")


def _exact(topology: Topology) -> int:
    import networkx

    flow = networkx.DiGraph()
    for source, target, channel in topology.edges.tolist():
        if topology.is_bus[target]:  # a bus carries what all its senders send
            flow.add_edge(source, ("in", target))
            width = int(topology.channels.bytes_per_cycle[channel])
            flow.add_edge(("in", target), target, capacity=width)
        elif channel < 0:
            flow.add_edge(source, target)
        else:
            flow.add_edge(source, target, capacity=int(topology.channels.bytes_per_cycle[channel]))
    pes, least = set(range(topology.num_pes)), np.iinfo(np.int64).max
    for size in {len(pes) // 2, len(pes) - len(pes) // 2}:
        for half in combinations(sorted(pes), size):
            flow.add_edges_from(("from", pe) for pe in half)
            flow.add_edges_from((pe, "to") for pe in pes.difference(half))
            least = min(least, networkx.maximum_flow_value(flow, "from", "to"))
            flow.remove_nodes_from(["from", "to"])
    return int(least)


class _Cuts:
    """Widths of cuts of one topology; a cut is a (nodes,) mask of the nodes on the first side."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        edges = topology.edges
        widths = np.append(topology.channels.bytes_per_cycle, 0)
        self._sources, self._targets, self._channels = edges.T
        self._bus_of = np.where(topology.is_bus[self._targets], self._targets, -1)
        self._widths: IntArray = widths[self._channels]

    def width(self, side: BoolArray) -> int:
        """Bytes per cycle across the cut, in the direction that has fewer."""
        return min(self._one_way(side), self._one_way(~side))

    def _one_way(self, side: BoolArray) -> int:
        plain = (self._bus_of < 0) & side[self._sources] & ~side[self._targets]
        total = int(self._widths[plain].sum())
        for bus in np.flatnonzero(self._topology.is_bus).tolist():
            into, out = self._targets == bus, self._sources == bus
            if side[self._sources[into]].any() and not side[self._targets[out]].all():
                total += int(self._widths[into].max())
        return total

    def improved(self, half: BoolArray) -> BoolArray:
        """A cut (nodes,) from a half of the PEs (PEs,).

        Switches go to the side that most of their width leads to; where PEs are few, swaps of two PEs that make the
        cut narrower are made too.
        """
        side = self._settled(half)
        if self._topology.num_pes > SWAP_PES:
            return side
        best = self.width(side)
        for first in range(self._topology.num_pes):
            for second in range(first):
                if side[first] != side[second]:
                    swapped = side[: self._topology.num_pes].copy()
                    swapped[[first, second]] = swapped[[second, first]]
                    after = self._settled(swapped)
                    width = self.width(after)
                    if width < best:
                        best, side = width, after
        return side

    def _settled(self, half: BoolArray) -> BoolArray:
        num_pes, nodes = self._topology.num_pes, len(self._topology.nodes)
        pull = np.zeros(nodes, dtype=np.int64)
        pull[:num_pes] = np.where(half, 1, -1)
        for _ in range(16):
            ahead = np.zeros(nodes, dtype=np.int64)
            np.add.at(ahead, self._targets, self._widths * np.sign(pull[self._sources]))
            np.add.at(ahead, self._sources, self._widths * np.sign(pull[self._targets]))
            ahead[:num_pes] = pull[:num_pes]
            if np.array_equal(np.sign(ahead), np.sign(pull)):
                break
            pull = ahead
        side: BoolArray = pull > 0
        return side


def _candidates(topology: Topology) -> list[BoolArray]:
    num_pes, nodes = topology.num_pes, len(topology.nodes)
    orders = [np.arange(num_pes), np.arange(num_pes) % 2 * num_pes + np.arange(num_pes)]
    places = [(data["x_mm"], data["y_mm"]) for _, data in topology.graph.nodes(data=True)][:num_pes]
    orders += [np.array([place[axis] for place in places]) for axis in (0, 1)]
    if nodes <= SPECTRAL_NODES:
        weights = np.zeros((nodes, nodes))
        for source, target, channel in topology.edges.tolist():
            width = topology.channels.bytes_per_cycle[channel] if channel >= 0 else 1.0
            weights[source, target] += width
            weights[target, source] += width
        laplacian = np.diag(weights.sum(axis=1)) - weights
        _, vectors = np.linalg.eigh(laplacian)
        orders += [vectors[:num_pes, column] for column in range(1, min(4, nodes))]
    halves = []
    for order in orders:
        half = np.zeros(num_pes, dtype=np.bool_)
        half[np.argsort(np.round(order, 9), kind="stable")[: num_pes // 2]] = True
        halves.append(half)
    return halves


# ---- Comparisons at equal total wire: arrays whose widths are scaled to a budget.


_T = TypeVar("_T")
_ROUNDING = 1e-12  # relative error of sums of lengths


@dataclass(frozen=True, slots=True)
class WireScaling:
    """An array whose interconnect was scaled to a budget of wire.

    Args:
        array: the array with the new widths.
        factor: what the widths were multiplied by before they were rounded down, at least to 1.
        wanted_bits_mm: the budget.
        reached_bits_mm: the wire of the scaled array, no more than the budget.
    """

    array: ArrayConfig
    factor: float
    wanted_bits_mm: float
    reached_bits_mm: float

    def __str__(self) -> str:
        """The scaling in one line."""
        share = self.reached_bits_mm / self.wanted_bits_mm
        return (
            f"{self.array.name}: widths x {self.factor:.4g}, wire {self.reached_bits_mm:,.0f} of"
            f" {self.wanted_bits_mm:,.0f} bit mm ({share:.1%})"
        )


def wire_bits_mm(array: ArrayConfig) -> float:
    """All wire of the interconnect in bit mm: 8 wires for each byte per cycle, times their length."""
    return build_topology(array).channels.wire_bits_mm


def scale_to_wire(array: ArrayConfig, budget_bits_mm: float, *, source: str | None = None) -> WireScaling:
    """The array with all widths of its network scaled by one factor so that its wire fits the budget.

    Widths keep their ratios as far as whole bytes allow: they are rounded down, at least to 1 byte per cycle. Lengths
    and latencies do not depend on widths and stay. `source` is what errors call the budget.

    Raises:
        InputError: the budget is not a positive number, or the array has no wire to scale, or too much of it even with
            widths of 1.
    """
    if not 0 < budget_bits_mm < math.inf:
        raise InputError("not an amount of wire", source=source, given=budget_bits_mm, expected="bit mm, above 0")
    has, most = wire_bits_mm(array), budget_bits_mm * (1 + _ROUNDING)
    if has == 0:
        problem = f"{array.name} has no wire, whatever its widths"
        raise InputError(problem, source=source, given=budget_bits_mm, expected="an array with channels between PEs")
    least = wire_bits_mm(replace(array, network=_scaled(array.network, Fraction(0))))
    if least > most:
        raise InputError(
            f"{array.name} takes more wire than that even with channels of 1 byte per cycle",
            source=source,
            given=budget_bits_mm,
            expected=f"at least {least:,.0f} bit mm",
        )
    factor = Fraction(budget_bits_mm) / Fraction(has)
    while True:
        scaled = replace(array, network=_scaled(array.network, factor))
        reached = wire_bits_mm(scaled)
        if reached <= most:
            return WireScaling(scaled, float(factor), budget_bits_mm, reached)
        # Widths of 1 could not shrink, or a growth was rounded up: the other widths have to shrink more.
        factor *= min(Fraction(budget_bits_mm) / Fraction(reached), Fraction(999, 1000))


def scaled_to_wire(array: ArrayConfig, wire_bits_mm: float) -> ArrayConfig:
    """The array that `scale_to_wire` gives, without the report."""
    return scale_to_wire(array, wire_bits_mm).array


def _scaled(part: _T, factor: Fraction) -> _T:
    """A copy of a (nested) dataclass or tuple with every width in it scaled."""
    if isinstance(part, Bus | Tree | Link):
        return replace(part, bytes_per_cycle=max(1, math.floor(part.bytes_per_cycle * factor)))
    if isinstance(part, tuple):
        return tuple(_scaled(each, factor) for each in part)  # type: ignore[return-value]  # of the same type
    if isinstance(part, UserGraphShape):
        return user_graph(_scaled(part.nodes, factor), _scaled(part.edges, factor))  # type: ignore[return-value]
    if is_dataclass(part) and not isinstance(part, type):
        changes: dict[str, Any] = {}
        for each in fields(part):
            before = getattr(part, each.name)
            after = _scaled(before, factor)
            if after is not before and after != before:
                changes[each.name] = after
        return replace(part, **changes) if changes else part
    return part


@dataclass(frozen=True, slots=True)
class LevelMetrics:
    """Metrics of the channels of one level; pairs are the least and the greatest value."""

    level: str
    channels: int
    bytes_per_cycle: tuple[int, int]
    latency_cycles: tuple[int, int]
    overhead_cycles: tuple[int, int]
    length_mm: float
    wire_bits_mm: float

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of its row in a table."""
        spans = (self.bytes_per_cycle, self.latency_cycles, self.overhead_cycles)
        texts = [f"{least:,}" if least == most else f"{least:,}-{most:,}" for least, most in spans]
        return self.level, f"{self.channels:,}", *texts, f"{self.length_mm:,.1f}", f"{self.wire_bits_mm:,.0f}"


@dataclass(frozen=True, slots=True)
class TopologyMetrics:
    """Metrics of an interconnect.

    Args:
        num_pes: number of PEs.
        num_switches: number of switches and joints; routers belong to their PE.
        num_channels: number of channels; a link has one each way, a shared bus is one.
        diameter_hops: channels on the longest of the shortest paths between two PEs.
        bisection_bytes_per_cycle: the least width from one half of the PEs to the other, in one direction.
        bisection_how: how the bisection was found.
        wire_mm: length of all channels.
        wire_bits_mm: length times wires, 8 wires for each byte per cycle.
        levels: the channels level by level.
        floorplan: the floor plan under which the lengths hold.
    """

    kind: str
    num_pes: int
    num_switches: int
    num_channels: int
    diameter_hops: int
    bisection_bytes_per_cycle: int
    bisection_how: str
    wire_mm: float
    wire_bits_mm: float
    levels: tuple[LevelMetrics, ...]
    floorplan: str

    def to_dict(self) -> dict[str, Any]:
        """The metrics as a JSON-ready dict."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """HTML for notebooks: the metrics, and a table with a row for each level."""
        facts = [
            ("switches", f"{self.num_switches:,}"),
            ("channels", f"{self.num_channels:,}"),
            ("diameter", f"{self.diameter_hops:,} hops"),
            ("bisection", f"{self.bisection_bytes_per_cycle:,} B/cycle one way ({self.bisection_how})"),
            ("wire", f"{self.wire_mm:,.1f} mm, {self.wire_bits_mm:,.0f} bit mm"),
            ("floor plan", self.floorplan),
        ]
        heads = ("level", "channels", "B/cycle", "latency, cycles", "overhead, cycles", "length, mm", "wire, bit mm")
        rows = [level.cells for level in self.levels]
        return card(f"{self.kind}, {self.num_pes:,} PEs", facts, [Table(heads, rows)])


def topology_metrics(array: ArrayConfig) -> TopologyMetrics:
    """Metrics of an array's interconnect; in closed form where its kind has one."""
    topology, plan = build_topology(array), plan_of(array)
    kind = KINDS[array.network.kind]
    diameter = kind.diameter(plan)
    bisection = kind.bisection(plan) or search_bisection(topology)
    channels = topology.channels
    pitch, reach = array.floorplan.pe_pitch_mm, array.floorplan.mm_per_cycle
    return TopologyMetrics(
        kind=array.network.kind,
        num_pes=topology.num_pes,
        num_switches=sum(kind in ("switch", "joint") for _, kind in topology.graph.nodes(data="kind")),
        num_channels=len(channels),
        diameter_hops=count_diameter(topology) if diameter is None else diameter,
        bisection_bytes_per_cycle=bisection.bytes_per_cycle,
        bisection_how=bisection.how,
        wire_mm=float(channels.length_mm.sum()),
        wire_bits_mm=channels.wire_bits_mm,
        levels=level_metrics(channels),
        floorplan=f"{topology.floorplan}; a pitch of {pitch:g} mm, {reach:g} mm a cycle",
    )


def level_metrics(channels: Channels) -> tuple[LevelMetrics, ...]:
    """Metrics of each level, in the order of the channels."""
    levels = np.array(channels.level)
    return tuple(_level(channels, level, np.flatnonzero(levels == level)) for level in dict.fromkeys(channels.level))


def _level(channels: Channels, level: str, mine: np.ndarray[Any, Any]) -> LevelMetrics:
    def span(numbers: np.ndarray[Any, Any]) -> tuple[int, int]:
        return int(numbers[mine].min()), int(numbers[mine].max())

    lengths, widths = channels.length_mm[mine], channels.bytes_per_cycle[mine]
    return LevelMetrics(
        level=level,
        channels=len(mine),
        bytes_per_cycle=span(channels.bytes_per_cycle),
        latency_cycles=span(channels.latency_cycles),
        overhead_cycles=span(channels.overhead_cycles),
        length_mm=float(lengths.sum()),
        wire_bits_mm=float((8.0 * widths * lengths).sum()),
    )
