"""Kinds of interconnect over coordinates or digits of a PE's number: line to butterfly; and the crossbar."""

from __future__ import annotations

from collections.abc import Iterator

from pe_sim.config.arrays.floorplan import num_tree_levels
from pe_sim.config.networks.network import GraphNetwork
from pe_sim.config.networks.shapes import ButterflyShape, CrossbarShape, CubeShape, GridShape, PathShape
from pe_sim.network.topology.assembly import (
    Assembly,
    Bisection,
    Plan,
    Point,
    by_bits,
    folded,
    grid_bisection,
    loop,
    middle,
    row_by_row,
    snake,
    z_order,
)
from pe_sim.network.topology.topology import ROOT, Node, Topology

_EXACT = "closed form"


class PathKind:
    """A line or a ring."""

    def __init__(self, *, closed: bool) -> None:
        """closed: whether the ends meet."""
        self._closed = closed

    def build(self, plan: Plan) -> Topology:
        """The topology: a channel each way between neighbours, and between the root and its PE."""
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
        """Channels from end to end of a line, or half around a ring."""
        return plan.num_pes // 2 if self._closed else plan.num_pes - 1

    def bisection(self, plan: Plan) -> Bisection:
        """One link of a line, or two of a ring."""
        links = grid_bisection(1, plan.num_pes, wrapped=self._closed)
        return Bisection(links * _path(plan).link.bytes_per_cycle, _EXACT)


class GridKind:
    """A mesh, or a torus."""

    def __init__(self, *, wrapped: bool) -> None:
        """wrapped: whether rows and columns are rings."""
        self._wrapped = wrapped

    def build(self, plan: Plan) -> Topology:
        """The topology: a channel each way between neighbours, and between the root and its PE."""
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
        """Channels between the farthest PEs: the sum over rows and columns."""
        sides = (_grid(plan).rows, _grid(plan).cols)
        return sum(side // 2 if self._wrapped else side - 1 for side in sides)

    def bisection(self, plan: Plan) -> Bisection:
        """The links across rows or columns, whichever are fewer; twice as many where they wrap."""
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


# ---- Networks over the digits of a PE's number (hypercube, butterfly), and the crossbar.


class Hypercube:
    """Links between PEs whose numbers differ in one bit."""

    def build(self, plan: Plan) -> Topology:
        """The topology: a channel each way along each bit, and between the root and its PE."""
        shape = _cube(plan)
        assembly = Assembly(plan, by_bits(plan.num_pes), routers=True, beside=shape.root_at)
        for pe in range(plan.num_pes):
            for bit in range(plan.num_pes.bit_length() - 1):
                other = pe ^ 1 << bit
                assembly.wire(pe, other, f"hypercube {pe}->{other}", "link", shape.link)
        assembly.pair(shape.root_at, ROOT, "root", "root link", shape.link)
        return assembly.finish(
            "PEs on a grid by the bits of their number, even bits the column and odd bits the row, so that bit b is"
            " a wire of 2^floor(b / 2) pitches; the root left of the array on the height of its PE"
        )

    def diameter(self, plan: Plan) -> int:
        """Channels between PEs that differ in all bits: one a bit."""
        return plan.num_pes.bit_length() - 1

    def bisection(self, plan: Plan) -> Bisection:
        """The links of one bit."""
        return Bisection(plan.num_pes // 2 * _cube(plan).link.bytes_per_cycle, "closed form: N / 2 links")


class Butterfly:
    """Stages of switches; stage s exchanges digit n - 1 - s of the address, the most significant first.

    Channels go one way: from each PE into the first stage, between stages one for every address, and out of the last
    one to the PE of that address. The root has one more input and output, at the switches of address 0.
    """

    def build(self, plan: Plan) -> Topology:
        """The topology, as the class describes it."""
        shape, num_pes = _butterfly(plan), plan.num_pes
        radix, link, stages = shape.radix, shape.link, num_tree_levels(num_pes, shape.radix)
        assembly = Assembly(plan, z_order(num_pes), routers=False)
        if not stages:
            assembly.pair(0, ROOT, "root", "root link", link)
            return assembly.finish("one PE, the root beside it")
        for stage in range(stages):
            step = radix ** (stages - 1 - stage)
            for low in range(num_pes):
                if low // step % radix == 0:
                    members = [assembly.place(low + digit * step) for digit in range(radix)]
                    assembly.node(f"switch {stage}.{low}", "switch", middle(members))

        def switch(stage: int, address: int) -> Node:
            step = radix ** (stages - 1 - stage)
            return f"switch {stage}.{address - address // step % radix * step}"

        for pe in range(num_pes):
            assembly.wire(pe, switch(0, pe), f"butterfly PE {pe} in", "stage 0", link)
        for stage in range(stages - 1):
            for address in range(num_pes):
                name = f"butterfly {stage}->{stage + 1} at {address}"
                source, target = switch(stage, address), switch(stage + 1, address)
                assembly.wire(source, target, name, f"stage {stage + 1}", link)
        for pe in range(num_pes):
            assembly.wire(switch(stages - 1, pe), pe, f"butterfly PE {pe} out", f"stage {stages}", link)
        assembly.wire(ROOT, switch(0, 0), "root down", "root link", link)
        assembly.wire(switch(stages - 1, 0), ROOT, "root up", "root link", link)
        return assembly.finish(
            "PEs along a Z-order curve on a near-square grid, every switch in the middle of the PEs whose addresses it"
            " exchanges, the root left of the array; wires along rows and columns"
        )

    def diameter(self, plan: Plan) -> int:
        """Channels into the first stage, between stages, and out of the last one."""
        stages = num_tree_levels(plan.num_pes, _butterfly(plan).radix)
        return stages + 1 if stages else 0

    def bisection(self, plan: Plan) -> Bisection:
        """The links between the halves of the address space."""
        width = _butterfly(plan).link.bytes_per_cycle
        return Bisection(plan.num_pes // 2 * width, "closed form: N / 2 links, for the halves of the addresses")


class Crossbar:
    """One switch in the middle; every PE and the root have an input and an output port."""

    def build(self, plan: Plan) -> Topology:
        """The topology: a channel per port."""
        link = _crossbar(plan).link
        assembly = Assembly(plan, row_by_row(plan.num_pes), routers=False)
        assembly.node("crossbar", "switch", middle([assembly.place(pe) for pe in range(plan.num_pes)]))
        for pe in range(plan.num_pes):
            assembly.wire(pe, "crossbar", f"crossbar in {pe}", "input port", link)
            assembly.wire("crossbar", pe, f"crossbar out {pe}", "output port", link)
        assembly.wire(ROOT, "crossbar", "root down", "root link", link)
        assembly.wire("crossbar", ROOT, "root up", "root link", link)
        return assembly.finish(
            "PEs row by row on a near-square grid, the crossbar in the middle, the root left of the array; wires along"
            " rows and columns to the ports, the crosspoints inside count as no wire"
        )

    def diameter(self, plan: Plan) -> int:
        """Two channels, in and out; 0 for one PE."""
        return 2 if plan.num_pes > 1 else 0

    def bisection(self, plan: Plan) -> Bisection:
        """The ports of one half of the PEs."""
        return Bisection(plan.num_pes // 2 * _crossbar(plan).link.bytes_per_cycle, "closed form: N / 2 ports")


def _cube(plan: Plan) -> CubeShape:
    assert isinstance(plan.network, GraphNetwork)
    assert isinstance(plan.network.shape, CubeShape)
    return plan.network.shape


def _butterfly(plan: Plan) -> ButterflyShape:
    assert isinstance(plan.network, GraphNetwork)
    assert isinstance(plan.network.shape, ButterflyShape)
    return plan.network.shape


def _crossbar(plan: Plan) -> CrossbarShape:
    assert isinstance(plan.network, GraphNetwork)
    assert isinstance(plan.network.shape, CrossbarShape)
    return plan.network.shape
