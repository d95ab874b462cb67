"""The parameters of every kind of interconnect other than bus_tree: frozen, hashable, one shape a kind.

`auto` latencies stay here until the channels are laid out (`pe_sim.network`), because every wire has its own length.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final, Literal

Auto = Literal["auto"]
AUTO: Final = "auto"


@dataclass(frozen=True, slots=True)
class Link:
    """The parameters of the channels of one level."""

    bytes_per_cycle: int
    latency_cycles: int | Auto
    overhead_cycles: int = 0
    request_cycles: int | Auto = 0
    ramp_cycles: int = 0


@dataclass(frozen=True, slots=True)
class PathShape:
    """A line or a ring."""

    link: Link
    root_at: int


@dataclass(frozen=True, slots=True)
class GridShape:
    """A mesh or a torus: PE i in row i // cols, column i % cols."""

    rows: int
    cols: int
    link: Link
    root_at: int


@dataclass(frozen=True, slots=True)
class CubeShape:
    """A hypercube: PEs whose numbers differ in one bit are neighbours."""

    link: Link
    root_at: int


@dataclass(frozen=True, slots=True)
class ButterflyShape:
    """log_radix N stages of N / radix switches."""

    radix: int
    link: Link


@dataclass(frozen=True, slots=True)
class CrossbarShape:
    """One switch with an input and an output port for every PE."""

    link: Link


@dataclass(frozen=True, slots=True)
class SwitchTreeShape:
    """A tree of switches with a link each way; a level's links are `growth` times as wide as those below."""

    arity: int
    growth: float
    link: Link


@dataclass(frozen=True, slots=True)
class BusLevel:
    """One bus down and one tree up; the tree's overhead and request are 0."""

    bus: Link
    tree: Link
    arity: int
    downlink: bool


@dataclass(frozen=True, slots=True)
class HierarchicalBusShape:
    """Clusters of `cluster_pes` neighbours with a bus and a tree of their own, and a bus and a tree above them."""

    cluster_pes: int
    cluster: BusLevel
    top: BusLevel


@dataclass(frozen=True, slots=True)
class UserNode:
    """A node of the user's graph; `pe` is -1 for what is none, `link` belongs to a bus alone."""

    name: str
    kind: str
    pe: int
    combines: bool | None = None
    x_mm: float | None = None
    y_mm: float | None = None
    link: Link | None = None


@dataclass(frozen=True, slots=True)
class UserEdge:
    """One direction of an edge of the user's graph; into and out of a bus there is no link."""

    source: str
    target: str
    link: Link | None = None
    length_mm: float | None = None


@dataclass(frozen=True, slots=True)
class UserGraphShape:
    """The user's own graph; `digest` stands for it in hashes, which are taken often.

    `unused` names attributes of the file that say nothing here, a few words each.
    """

    digest: str
    nodes: tuple[UserNode, ...] = field(hash=False, repr=False)
    edges: tuple[UserEdge, ...] = field(hash=False, repr=False)
    unused: tuple[str, ...] = field(default=(), compare=False, repr=False)


def user_graph(nodes: tuple[UserNode, ...], edges: tuple[UserEdge, ...]) -> UserGraphShape:
    """The shape with its digest."""
    return UserGraphShape(hashlib.sha256(repr((nodes, edges)).encode()).hexdigest(), nodes, edges)


Shape = (
    PathShape
    | GridShape
    | CubeShape
    | ButterflyShape
    | CrossbarShape
    | SwitchTreeShape
    | HierarchicalBusShape
    | UserGraphShape
)
