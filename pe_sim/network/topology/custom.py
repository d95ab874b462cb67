"""The kind of interconnect that is a user's own graph of channels."""

from __future__ import annotations

from pe_sim.config.networks.network import GraphNetwork
from pe_sim.config.networks.shapes import AUTO, Link, UserGraphShape, UserNode
from pe_sim.network.topology.assembly import Assembly, Plan, Point, row_by_row
from pe_sim.network.topology.topology import ROOT, Node, Topology


class UserGraph:
    """A user's graph: nodes and channels as given; all neighbours of a bus hear what is sent on it."""

    def build(self, plan: Plan) -> Topology:
        """The topology; of nodes without a position, PEs stand row by row, others in the middle of their neighbours."""
        shape, pitch = _shape(plan), plan.floorplan.pe_pitch_mm
        grid = row_by_row(plan.num_pes)
        places: list[Point] = [(0.0, 0.0)] * plan.num_pes
        names: dict[str, Node] = {}
        for node in shape.nodes:
            names[node.name] = node.pe if node.pe >= 0 else ROOT if node.kind == "root" else _free_name(node.name)
            if node.pe >= 0:
                places[node.pe] = _given_place(node, pitch) or grid[node.pe]
        assembly = Assembly(plan, places, routers=True)
        neighbours: dict[str, list[str]] = {node.name: [] for node in shape.nodes}
        for edge in shape.edges:
            neighbours[edge.source].append(edge.target)
            neighbours[edge.target].append(edge.source)
        spots = _spots(shape.nodes, neighbours, names, assembly, pitch)
        buses: dict[str, int] = {}
        for node in shape.nodes:
            combines = None if node.combines is None else node.combines and assembly.combining and node.kind != "bus"
            if node.pe >= 0 or node.kind == "root":
                assembly.amend(names[node.name], spots.get(node.name), combines)
                continue
            assembly.node(str(names[node.name]), node.kind, spots[node.name], combines)
            if node.link is not None:
                around = [spots[name] for name in dict.fromkeys(neighbours[node.name])]
                buses[node.name] = _bus(assembly, node.name, node.link, spots[node.name], around)
        for edge in shape.edges:
            source, target = names[edge.source], names[edge.target]
            if edge.link is None:
                assembly.edge(source, target, *([buses[edge.target]] if edge.target in buses else []))
            else:
                length = None if edge.length_mm is None else edge.length_mm / pitch
                assembly.wire(source, target, f"{edge.source}->{edge.target}", "link", edge.link, length)
        return assembly.finish(
            "nodes where the graph puts them, else PEs row by row on a near-square grid, other nodes in the middle of"
            " their neighbours and the root left of the array; wires along rows and columns where no length is given"
        )

    def diameter(self, plan: Plan) -> None:
        """None: it is to be counted on the graph."""
        return

    def bisection(self, plan: Plan) -> None:
        """None: it is to be found on the graph."""
        return


def _bus(assembly: Assembly, name: str, link: Link, spot: Point, around: list[Point]) -> int:
    """Adds the channel of a bus; returns its index.

    A bus is a star of wires; its `auto` latency is the way between the two listeners farthest from its middle.
    """
    reaches = sorted((abs(x - spot[0]) + abs(y - spot[1]) for x, y in around), reverse=True)
    latency = assembly.auto_cycles(sum(reaches[:2])) if link.latency_cycles == AUTO else None
    return assembly.channel(name, "bus", link, sum(reaches), latency)


def _spots(
    nodes: tuple[UserNode, ...],
    neighbours: dict[str, list[str]],
    names: dict[str, Node],
    assembly: Assembly,
    pitch: float,
) -> dict[str, Point]:
    """Place of every node: as given, as the assembly has it, or in the middle of the neighbours that have a place.

    Nodes without a place are given one ring after ring, from the PEs outwards.
    """
    spots: dict[str, Point] = {}
    for node in nodes:
        given = _given_place(node, pitch)
        if given is not None:
            spots[node.name] = given
        elif node.pe >= 0 or node.kind == "root":
            spots[node.name] = assembly.place(names[node.name])
    waiting = [node.name for node in nodes if node.name not in spots]
    while waiting:
        ready = {}
        for name in waiting:
            around = [spots[other] for other in dict.fromkeys(neighbours[name]) if other in spots]
            if around:
                ready[name] = (sum(x for x, _ in around) / len(around), sum(y for _, y in around) / len(around))
        if not ready:  # nodes without any edge
            ready = dict.fromkeys(waiting, (0.0, 0.0))
        spots |= ready
        waiting = [name for name in waiting if name not in ready]
    return spots


def _given_place(node: UserNode, pitch: float) -> Point | None:
    if node.x_mm is None or node.y_mm is None:
        return None
    return node.x_mm / pitch, node.y_mm / pitch


def _free_name(name: str) -> str:
    """A node's name in the topology: the user's, but a switch that is called `root` without being it gets another."""
    return "node root" if name == ROOT else name


def _shape(plan: Plan) -> UserGraphShape:
    assert isinstance(plan.network, GraphNetwork)
    assert isinstance(plan.network.shape, UserGraphShape)
    return plan.network.shape
