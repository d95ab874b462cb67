"""The parts of a picture of an interconnect: takes nodes with their spots, gives marks and strokes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pe_sim.config.array import ArrayConfig
from pe_sim.config.network import GraphNetwork
from pe_sim.network.channels import Channels
from pe_sim.network.topology import ROOT, Node, Topology

Spot = tuple[float, float]
Way = Callable[[Node, Node], tuple[Spot, ...]]


@dataclass(frozen=True, slots=True)
class Mark:
    """A node to draw; `label` may be empty."""

    kind: str
    spot: Spot
    label: str = ""


@dataclass(frozen=True, slots=True)
class Stroke:
    """A channel (or both of a pair) along a way; a bar is a bus, a tap leads to one. `channels` are their indices."""

    level: str
    width: int
    way: tuple[Spot, ...]
    channels: tuple[int, ...]
    role: str = "link"


@dataclass(slots=True)
class Layout:
    """A whole picture.

    Args:
        marks, strokes, boxes, texts: what to draw.
        notes: what to say below it.
        shape: width over height of what is drawn on.
        height: in inches.
        crowd: how many nodes stand above each other where they are densest.
        thick: how thick lines are against the usual.
        equal: whether both directions have one scale.
    """

    marks: list[Mark] = field(default_factory=list)
    strokes: list[Stroke] = field(default_factory=list)
    boxes: list[tuple[Spot, Spot]] = field(default_factory=list)
    texts: list[tuple[Spot, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shape: float = 1.0
    height: float = 6.4
    crowd: float = 16.0
    thick: float = 1.0
    equal: bool = True


def plain(
    topology: Topology,
    spots: dict[Node, Spot],
    way: Way | None = None,
    split: Callable[[Node, Node], str] | None = None,
) -> Layout:
    """Every node at its spot, every link straight, or along its way; `split` names the levels anew."""
    layout = Layout()
    draw_links(layout, topology, spots, way, split)
    layout.marks += marks_of(topology, spots)
    return layout


def draw_links(
    layout: Layout,
    topology: Topology,
    spots: dict[Node, Spot],
    way: Way | None = None,
    split: Callable[[Node, Node], str] | None = None,
) -> None:
    """One stroke for both directions of a link; taps and senders of drawn buses are left out."""
    channels, done = topology.channels, set()
    edges = topology.graph.edges
    for source, target, channel in topology.graph.edges(data="channel"):
        if source not in spots or target not in spots or (target, source) in done:
            continue
        done.add((source, target))
        back = edges[target, source]["channel"] if topology.graph.has_edge(target, source) else -1
        carried = tuple(each for each in (channel, back) if each >= 0)
        if not carried:
            continue
        level = (split(source, target) if split else "") or channels.level[carried[0]]
        points = way(source, target) if way else (spots[source], spots[target])
        layout.strokes.append(Stroke(level, int(channels.bytes_per_cycle[carried[0]]), points, carried))


def stroke_of(channels: Channels, channel: int, way: tuple[Spot, ...], role: str = "link") -> Stroke:
    """One channel along a way."""
    return Stroke(channels.level[channel], int(channels.bytes_per_cycle[channel]), way, (channel,), role)


def marks_of(topology: Topology, spots: dict[Node, Spot]) -> list[Mark]:
    """A mark for each node with a spot."""
    kinds = topology.graph.nodes(data="kind")
    return [Mark(kind, spots[node], label_of(node, topology.num_pes)) for node, kind in kinds if node in spots]


def label_of(node: Node, number: int, most: int = 64) -> str:
    """The number of a PE, if there are not too many."""
    if node == ROOT:
        return "root"
    return str(node) if isinstance(node, int) and number <= most else ""


def shape_of(array: ArrayConfig) -> object:
    """The shape of the network."""
    assert isinstance(array.network, GraphNetwork)
    return array.network.shape


def root_pe(topology: Topology) -> int:
    """The PE that the root is attached to."""
    return int(next(node for node in topology.graph.predecessors(ROOT)))
