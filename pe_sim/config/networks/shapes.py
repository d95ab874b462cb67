"""The parameters of every kind of interconnect other than bus_tree: frozen, hashable, one shape for each kind.

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
    """A butterfly: log_radix N stages of N / radix switches."""

    radix: int
    link: Link


@dataclass(frozen=True, slots=True)
class CrossbarShape:
    """A crossbar: one switch with an input and an output port for every PE."""

    link: Link


@dataclass(frozen=True, slots=True)
class SwitchTreeShape:
    """A tree of switches with a channel each way; a level's links are `growth` times as wide as those below."""

    arity: int
    growth: float
    link: Link


@dataclass(frozen=True, slots=True)
class BusLevel:
    """One level of a hierarchical bus: a bus down and a tree up; the tree's overhead and request are 0."""

    bus: Link
    tree: Link
    arity: int
    downlink: bool


@dataclass(frozen=True, slots=True)
class HierarchicalBusShape:
    """A hierarchical bus: clusters of `cluster_pes` PEs with a bus and a tree each, under a top bus and tree."""

    cluster_pes: int
    cluster: BusLevel
    top: BusLevel


@dataclass(frozen=True, slots=True)
class UserNode:
    """A node of the user's graph; `pe` is -1 if it is no PE, and only a bus has a `link`."""

    name: str
    kind: str
    pe: int
    combines: bool | None = None
    x_mm: float | None = None
    y_mm: float | None = None
    link: Link | None = None


@dataclass(frozen=True, slots=True)
class UserEdge:
    """One direction of an edge of the user's graph; `link` is None if an end is a bus."""

    source: str
    target: str
    link: Link | None = None
    length_mm: float | None = None


@dataclass(frozen=True, slots=True)
class UserGraphShape:
    """The user's own graph; hashes, which are taken often, use its `digest` alone.

    `unused` names attributes of the file that have no meaning here, a few words each.
    """

    digest: str
    nodes: tuple[UserNode, ...] = field(hash=False, repr=False)
    edges: tuple[UserEdge, ...] = field(hash=False, repr=False)
    unused: tuple[str, ...] = field(default=(), compare=False, repr=False)


def user_graph(nodes: tuple[UserNode, ...], edges: tuple[UserEdge, ...]) -> UserGraphShape:
    """The shape of a user's graph, with its digest."""
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
