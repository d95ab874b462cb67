"""Direct networks on the plane: line, ring, mesh, torus. Every PE has a router of its own."""

from __future__ import annotations

from collections.abc import Iterator

from pe_sim.config.network import GraphNetwork
from pe_sim.config.network_shapes import GridShape, PathShape
from pe_sim.network.assembly import Assembly, Bisection, Plan
from pe_sim.network.halving import grid_bisection
from pe_sim.network.placement import Point, folded, loop, row_by_row, snake
from pe_sim.network.topology import ROOT, Topology

_EXACT = "closed form"


class PathKind:
    """A line, or a ring."""

    def __init__(self, *, closed: bool) -> None:
        """closed: whether the ends meet."""
        self._closed = closed

    def build(self, plan: Plan) -> Topology:
        """A channel each way between neighbours, and between the root and its PE."""
        shape, kind = _path(plan), plan.network.kind
        places = loop(plan.num_pes) if self._closed else snake(plan.num_pes)
        assembly = Assembly(plan, places, routers=True, beside=shape.root_at)
        for pe in range(plan.num_pes - 1):
            assembly.wire(pe, pe + 1, f"{kind} {pe}->{pe + 1}", "link", shape.link)
            assembly.wire(pe + 1, pe, f"{kind} {pe + 1}->{pe}", "link", shape.link)
        if self._closed and plan.num_pes > 2:
            last = plan.num_pes - 1
            assembly.wire(last, 0, f"{kind} {last}->0", "link", shape.link)
            assembly.wire(0, last, f"{kind} 0->{last}", "link", shape.link)
        assembly.pair(shape.root_at, ROOT, "root", "root link", shape.link)
        way = "a closed loop through" if self._closed else "rows forth and back on"
        return assembly.finish(
            f"PEs along {way} a near-square grid, the root left of the array on the height of its PE; wires along rows"
            " and columns"
        )

    def diameter(self, plan: Plan) -> int:
        """From end to end, or half around."""
        return plan.num_pes // 2 if self._closed else plan.num_pes - 1

    def bisection(self, plan: Plan) -> Bisection:
        """One link, or two."""
        links = grid_bisection(1, plan.num_pes, wrapped=self._closed)
        return Bisection(links * _path(plan).link.bytes_per_cycle, _EXACT)


class GridKind:
    """A mesh, or a torus."""

    def __init__(self, *, wrapped: bool) -> None:
        """wrapped: whether rows and columns are rings."""
        self._wrapped = wrapped

    def build(self, plan: Plan) -> Topology:
        """A channel each way between neighbours, and between the root and its PE."""
        shape, kind = _grid(plan), plan.network.kind
        assembly = Assembly(plan, self._places(shape), routers=True, beside=shape.root_at)
        for first, second in self._neighbours(shape):
            for source, target in ((first, second), (second, first)):
                name = f"{kind} {_at(source, shape)}->{_at(target, shape)}"
                assembly.wire(source, target, name, "link", shape.link)
        assembly.pair(shape.root_at, ROOT, "root", "root link", shape.link)
        how = "folded in both directions, so that rings close without long wires" if self._wrapped else "row by row"
        return assembly.finish(
            f"PEs on a grid of {shape.rows} x {shape.cols}, {how}, the root left of the array on the height of its PE;"
            " wires along rows and columns"
        )

    def _places(self, shape: GridShape) -> list[Point]:
        if not self._wrapped:
            return row_by_row(shape.rows * shape.cols, shape.cols)
        xs, ys = folded(shape.cols), folded(shape.rows)
        return [(float(x), float(y)) for y in ys for x in xs]

    def _neighbours(self, shape: GridShape) -> Iterator[tuple[int, int]]:
        rows, cols = shape.rows, shape.cols
        for pe in range(rows * cols):
            row, col = divmod(pe, cols)
            if col + 1 < cols:
                yield pe, pe + 1
            elif self._wrapped and cols > 2:
                yield pe, pe - col
            if row + 1 < rows:
                yield pe, pe + cols
            elif self._wrapped and rows > 2:
                yield pe, col

    def diameter(self, plan: Plan) -> int:
        """The sum over both directions."""
        sides = (_grid(plan).rows, _grid(plan).cols)
        return sum(side // 2 if self._wrapped else side - 1 for side in sides)

    def bisection(self, plan: Plan) -> Bisection:
        """The links of the fewer of rows and columns, twice as many where they wrap."""
        shape = _grid(plan)
        links = grid_bisection(shape.rows, shape.cols, wrapped=self._wrapped)
        return Bisection(links * shape.link.bytes_per_cycle, _EXACT)


def _at(pe: int, shape: GridShape) -> str:
    return f"({pe // shape.cols},{pe % shape.cols})"


def _path(plan: Plan) -> PathShape:
    assert isinstance(plan.network, GraphNetwork)
    assert isinstance(plan.network.shape, PathShape)
    return plan.network.shape


def _grid(plan: Plan) -> GridShape:
    assert isinstance(plan.network, GraphNetwork)
    assert isinstance(plan.network.shape, GridShape)
    return plan.network.shape
