"""Takes the checked section of an interconnect, gives the frozen GraphNetwork that fits the number of PEs."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

from pe_sim.config.files.schema import MAX_RATE
from pe_sim.config.networks.bus_tree_schema import KINDS, BusFile, CollectivesFile, NetworkFile, TreeFile
from pe_sim.config.networks.network import GraphCollectives, GraphNetwork
from pe_sim.config.networks.schema import (
    BusLevelFile,
    ButterflyFile,
    CrossbarFile,
    FatTreeFile,
    GraphFile,
    GraphNetworkFile,
    GridFile,
    HierarchicalBusFile,
    HTreeFile,
    HypercubeFile,
    LineFile,
    LinkFile,
    RingFile,
)
from pe_sim.config.networks.shapes import (
    BusLevel,
    ButterflyShape,
    CrossbarShape,
    CubeShape,
    GridShape,
    HierarchicalBusShape,
    Link,
    PathShape,
    Shape,
    SwitchTreeShape,
)
from pe_sim.config.networks.user_graph import inline_graph, read_graph
from pe_sim.errors import InputError, told_of


def only_cluster(section: object, num_pes: int) -> NetworkFile | None:
    """The bus and tree that a hierarchy of a single cluster is simulated as; None for any other network.

    It stays a graph (None) if it asks for something that a bus and a tree do not have.
    """
    if not isinstance(section, HierarchicalBusFile) or section.cluster_pes < num_pes:
        return None
    ways = section.collectives.model_dump(exclude={"gather", "scatter"})
    if not section.in_network_reduction or section.forward_cycles or any(way != "best" for way in ways.values()):
        return None
    level, combining = section.cluster, ("combine_cycles", "softmax_combine_cycles")
    tree = level.tree.model_dump() | {name: getattr(section, name) for name in combining}
    return NetworkFile(
        kind="bus_tree",
        bus=BusFile(**level.bus.model_dump()),
        tree=TreeFile(**tree),
        collectives=CollectivesFile(
            gather=section.collectives.gather,
            scatter="by_reduction" if section.collectives.scatter == "by_broadcast" else section.collectives.scatter,
        ),
        arbitration=section.arbitration,
    )


def resolve_network(section: object, num_pes: int, source: str | None, folder: Path | None) -> GraphNetwork:
    """The resolved network of a checked section.

    Args:
        section: the checked Section of its kind.
        num_pes: number of PEs, N.
        source: what error messages call the array's file.
        folder: where the file of a user's graph is looked up; None: the current folder.

    Raises:
        InputError: N does not fit the kind, or the user's graph is wrong.
    """
    assert isinstance(section, GraphNetworkFile)
    shared = GraphNetworkFile.model_fields.keys() - {"collectives"}
    return GraphNetwork(
        **section.model_dump(include=shared),
        shape=_shape(section, num_pes, source, folder),
        collectives=GraphCollectives(**section.collectives.model_dump()),
    )


def _shape(section: GraphNetworkFile, num_pes: int, source: str | None, folder: Path | None) -> Shape:
    match section:
        case LineFile() | RingFile():
            return PathShape(_link(section.link), _place(section.root_at, num_pes, num_pes // 2, source))
        case GridFile():
            rows, cols = _sides(section, num_pes, source)
            center = rows // 2 * cols + cols // 2
            return GridShape(rows, cols, _link(section.link), _place(section.root_at, num_pes, center, source))
        case HypercubeFile():
            _require_power(num_pes, 2, "a hypercube", source)
            return CubeShape(_link(section.link), _place(section.root_at, num_pes, 0, source))
        case ButterflyFile():
            _require_power(num_pes, section.radix, f"a butterfly of radix {section.radix}", source)
            return ButterflyShape(section.radix, _link(section.link))
        case CrossbarFile():
            return CrossbarShape(_link(section.link))
        case HTreeFile():
            return SwitchTreeShape(section.arity, 1.0, _link(section.link))
        case FatTreeFile():
            return _fat_tree(section, num_pes, source)
        case HierarchicalBusFile():
            return HierarchicalBusShape(section.cluster_pes, _bus_level(section.cluster), _bus_level(section.top))
        case GraphFile():
            return _user_graph(section, num_pes, source, folder)
    with told_of(source or "network"):
        shape: Shape = KINDS[section.kind].shape(section, num_pes)  # of an installed package
    return shape


def _link(link: LinkFile) -> Link:
    return Link(**link.model_dump())


def _bus_level(level: BusLevelFile) -> BusLevel:
    tree = Link(level.tree.bytes_per_cycle, level.tree.latency_cycles)
    return BusLevel(Link(**level.bus.model_dump()), tree, level.tree.arity, level.tree.downlink)


def _place(given: int | str, num_pes: int, center: int, source: str | None) -> int:
    place = center if isinstance(given, str) else given
    if place >= num_pes:
        raise InputError(
            "there is no such PE",
            source=source,
            path="network.root_at",
            given=given,
            expected=f"a PE from 0 to {num_pes - 1}",
        )
    return place


def _sides(section: GridFile, num_pes: int, source: str | None) -> tuple[int, int]:
    """Rows and columns of a grid; missing ones follow from N, the most square pair if both are missing."""
    rows, cols = section.rows, section.cols
    square = next(side for side in range(math.isqrt(num_pes), 0, -1) if num_pes % side == 0)
    if rows is None and cols is None:
        return square, num_pes // square
    if rows is None and cols is not None:
        rows = num_pes // cols
    elif cols is None and rows is not None:
        cols = num_pes // rows
    assert rows is not None
    assert cols is not None
    if rows * cols != num_pes:
        given = {name: side for name, side in (("rows", section.rows), ("cols", section.cols)) if side is not None}
        raise InputError(
            f"rows times columns is not the number of PEs, {num_pes}",
            source=source,
            path="network." + " and network.".join(given),
            given=list(given.values()) if len(given) > 1 else next(iter(given.values())),
            expected=f"rows x cols = {num_pes}: {_pairs(num_pes)}",
            hint=f"left out, they are {square} x {num_pes // square}",
        )
    return rows, cols


def _pairs(num_pes: int, most: int = 6) -> str:
    sides = [side for side in range(math.isqrt(num_pes), 0, -1) if num_pes % side == 0]
    shown = ", ".join(f"{side} x {num_pes // side}" for side in sides[:most])
    return shown + (", ..." if len(sides) > most else "")


def _require_power(num_pes: int, base: int, what: str, source: str | None) -> None:
    below = 1
    while below * base <= num_pes:
        below *= base
    if below != num_pes:
        raise InputError(
            f"the number of PEs does not fit {what}",
            source=source,
            path="num_pes",
            given=num_pes,
            expected=f"a power of {base}",
            hint=f"the nearest that fit are {below} and {below * base}",
        )


def _fat_tree(section: FatTreeFile, num_pes: int, source: str | None) -> SwitchTreeShape:
    widest, leaves = Fraction(section.link.bytes_per_cycle), section.arity
    while leaves < num_pes:
        widest, leaves = widest * Fraction(str(section.growth)), leaves * section.arity
    if widest > MAX_RATE:
        raise InputError(
            "the links at the top get too wide",
            source=source,
            path="network.growth",
            given=section.growth,
            expected=f"links of at most {MAX_RATE} bytes per cycle",
            hint="lower growth or link.bytes_per_cycle",
        )
    return SwitchTreeShape(section.arity, section.growth, _link(section.link))


def _user_graph(section: GraphFile, num_pes: int, source: str | None, folder: Path | None) -> Shape:
    if (section.file is None) == (section.graph is None):
        raise InputError(
            "a network of kind graph is given in one place" if section.file else "the graph is missing",
            source=source,
            path="network",
            expected="either file: with the path of a GraphML or node-link JSON file, or graph: with nodes and edges",
        )
    if section.graph is not None:
        where = f"{source}: network.graph" if source else "network.graph"
        return inline_graph(section.graph, num_pes, section.link, where)
    assert section.file is not None
    path = (folder or Path()) / section.file
    return read_graph(path, num_pes, section.link)
