"""Grids of PEs for an FFN: which there are, and which need not be looked at.

What gate and up give by a grid are terms of the whole tensor where the activation does not run on the slices of the
grid's rows, as they are by `col`; what down gives by any grid are terms of the whole tensor too. All of them are moved
alike then, and one is no better than another whose matrices take PE 0, which has the largest tiles, no longer.

Where the activation does run on the rows' slices, a grid has its rows' sums to add up and to bring back first. `row`
for gate and up with `col` for down asks for the same input, gives the same output and has no such sums; it is no worse
unless the tiles save more than that takes until the last row has its own.

Both hold where all PEs start together; all that follows waits for the last of them, as terms are added up over all.
A grid may be dropped then for the reason for which the shortest paths drop partial mappings: as many others as those
ask for are no worse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.networks.network import GraphNetwork
from pe_sim.graph.operators import Linear
from pe_sim.mapping.distributions import OperatorPlacement, distribution_for
from pe_sim.mapping.groups import PeGroups, fits_grid, grid_name, grid_ways
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placement import Partial, Replicate, Shard
from pe_sim.mapping_search.fragments import Scene
from pe_sim.mapping_search.labels import Moment
from pe_sim.mapping_search.lower_bound import matrix_cycles
from pe_sim.mapping_search.space import GATED, GRIDDED, Choice, Part
from pe_sim.network.bus_tree import downlink_cycles, reduce_cycles, serial_cycles
from pe_sim.schedule.builders import STREAMING_OVERLAP
from pe_sim.schedule.matrix import gemm_work
from pe_sim.units import IntArray, ceil_div, total

_ON_SLICES = ("shard", "follow")  # distributions of an activation of a grid's terms that runs on the rows' slices
_NOTHING: frozenset[str] = frozenset()

Allowed = Mapping[str, Sequence[str]]  # by field, what it may be
Matrices = Mapping[str, Linear]  # by name


@dataclass(frozen=True, slots=True)
class Rivals:
    """The options to which grids lose, so that the grids need not be looked at.

    Args:
        alike: by matrix and grid, the options that make the same moves and are no worse.
        on_slices: grids whose rows' sums take longer than their tiles save.
    """

    alike: Mapping[str, Mapping[str, frozenset[str]]]
    on_slices: frozenset[str] = _NOTHING

    def worth(
        self, part: Part, options: tuple[Choice, ...], allowed: Allowed, entering: Sequence[Moment], keep: int
    ) -> tuple[Choice, ...]:
        """The options of a part that fewer than `keep` others beat; arguments as of `beat`."""
        if not any(name in self.alike for name, _ in part.options):
            return options
        return tuple(choice for choice in options if not self.beat(part, choice, allowed, entering, keep))

    def beat(self, part: Part, choice: Choice, allowed: Allowed, entering: Sequence[Moment], keep: int) -> bool:
        """Whether `keep` others are no worse than a choice of a part; only where nothing but time counts.

        Args:
            allowed: what else might be chosen.
            entering: what the part is entered with, one a step.
        """
        chosen = dict(choice)
        names = [name for name in self.alike if name in chosen]
        if not names or grid_ways(chosen[names[0]]) is None or len({chosen[name] for name in names}) > 1:
            return False
        grid = chosen[names[0]]
        if chosen.get("activation") in _ON_SLICES:
            are_open = all("row" in allowed.get(name, ()) for name in names) and "col" in allowed.get("down", ())
            return grid in self.on_slices and are_open and keep == 1 and _start_together(part, entering)
        others = (self.alike[name].get(grid, _NOTHING).intersection(allowed.get(name, ())) for name in names)
        if len(frozenset.intersection(*others)) < keep or any(_is_row_slice(moment, grid) for moment in entering):
            return False  # down takes slices of the rows of its own grid as they are
        return _start_together(part, entering)


def rivals_of(scenes: Sequence[Scene], grids: tuple[str, ...]) -> Rivals:
    """The rivals of grids on one division of the PEs, no worse in any step."""
    array = scenes[0].array
    if isinstance(array.network, GraphNetwork) or array.network.collectives.scatter == "serial" or not grids:
        return Rivals({})  # where slices are sent one by one, their sizes decide as well
    steps = [(scene, {op.name: op for op in scene.graph.layer if isinstance(op, Linear)}) for scene in scenes]
    alike = {
        name: _no_worse(
            {option: [_figures(scene, ops[name], option) for scene, ops in steps] for option in ("col", *grids)}
        )
        for name in GRIDDED
        if name in steps[0][1]
    }
    if array.network.collectives.gather == "serial" or array.overlap >= STREAMING_OVERLAP:
        return Rivals(alike)
    losing = (grid for grid in grids if all(_loses_on_slices(scene, ops, grid) for scene, ops in steps))
    return Rivals(alike, frozenset(losing))


def _no_worse(figures: Mapping[str, list[tuple[int, ...]]]) -> dict[str, frozenset[str]]:
    """By grid, the other options that are no worse; of equals the earlier ones.

    None of them replaces `col`: a slice that every PE has for itself is no slice of a grid.
    """
    flat = {name: np.array(each) for name, each in figures.items()}
    order = list(flat)
    return {
        mine: frozenset(
            other
            for place, other in enumerate(order)
            if other != mine
            and (flat[other] <= flat[mine]).all()
            and (place < order.index(mine) or (flat[other] < flat[mine]).any())
        )
        for mine in order
        if grid_ways(mine) is not None
    }


def _figures(scene: Scene, operator: Linear, option: str) -> tuple[int, ...]:
    """The figures of PE 0 in which options that make the same moves can differ: cycles, outputs, bias entries."""
    array, layouts = scene.array, scene.layouts
    figures = [_cycles(scene, operator, option)[0]]
    if operator.out_dim == "hidden" or array.overlap >= STREAMING_OVERLAP:
        # Outputs count where they are added to a stream of terms, or come behind the tail of a streamed message.
        figures.append(matrix_columns(operator, layouts, option)[1][0])
    if operator.bias:
        figures.append(bias_columns(operator, layouts, option)[0])
    return tuple(map(int, figures))


def _cycles(scene: Scene, operator: Linear, option: str) -> IntArray:
    """(PEs,) least cycles of a matrix under one option; 0 where a PE has none of it."""
    inner, outer = matrix_columns(operator, scene.layouts, option)
    work = gemm_work(scene.array, scene.layouts.pe_rows(operator.outputs[0].rows, Replicate()), inner, outer)
    return np.where(work.last_compute_cycles > 0, matrix_cycles(work, scene.array), 0)


def _loses_on_slices(scene: Scene, matrices: Matrices, grid: str) -> bool:
    """Whether the tiles save less than the sums of the rows take at least, both before down and behind it."""
    down, widening = matrices["down"], [matrices[name] for name in GATED if name in matrices]
    if not all(_has_fewer_outputs(scene.layouts, operator, grid) for operator in (*widening, down)):
        return False
    by_row = total(_cycles(scene, operator, "row") for operator in widening)
    by_grid = total(_cycles(scene, operator, grid) for operator in widening) + _row_sums(scene, widening, grid)
    vector, rows = scene.array.pe.vector, scene.layouts.pe_rows(down.outputs[0].rows, Replicate())
    added = ceil_div(rows * down.out_size, vector.lanes) * vector.cycles_per_element["add"]  # to a stream of terms
    behind_row = by_row + _cycles(scene, down, "col") + added
    behind_grid = by_grid + _cycles(scene, down, grid)
    return bool(by_row.max() <= by_grid.min() and behind_row.max() <= behind_grid.min())


def _has_fewer_outputs(layouts: Layouts, operator: Linear, grid: str) -> bool:
    """Whether, without a grid, no PE has more to activate and to add a bias to than with it."""
    widens = operator.out_dim == "ffn"
    option = "row" if widens else "col"
    if operator.bias and bias_columns(operator, layouts, option).max() > bias_columns(operator, layouts, grid).min():
        return False
    of_row, of_grid = (matrix_columns(operator, layouts, name)[1] for name in (option, grid))
    return not widens or bool(of_row.max() <= of_grid.min())


def _row_sums(scene: Scene, operators: Sequence[Linear], grid: str) -> int:
    """Least cycles until the last row has its sums: all are added up side by side, and come back one by one."""
    layouts, network = scene.layouts, scene.array.bus_tree
    ways = grid_ways(grid) or 1
    held = [matrix_placement(operator, grid).outputs[0] for operator in operators]
    slices = [place.held for place in held if isinstance(place, Partial) and place.held is not None]
    tensors = [operator.outputs[0] for operator in operators]
    sums = total(layouts.pe_bytes(tensor, place) for tensor, place in zip(tensors, held, strict=True))
    back = total(layouts.pe_bytes(tensor, place) for tensor, place in zip(tensors, slices, strict=True))
    first_pe, _, _ = layouts.scopes(ways)
    levels = layouts.groups.joint_levels(ways) or 0
    up = reduce_cycles(network.tree, np.atleast_1d(sums[first_pe].min()), levels, parallel=True)
    if network.tree.downlink:
        return int(up + downlink_cycles(network.tree, np.atleast_1d(back[first_pe].min()), levels))
    return int(up + serial_cycles(network.bus, back[first_pe], from_root=False))


def _start_together(part: Part, entering: Sequence[Moment]) -> bool:
    """Whether all PEs have what a part reads, and nothing else to do, from the same cycle on."""
    return all(_starts_together(part, moment) for moment in entering)


def _starts_together(part: Part, moment: Moment) -> bool:
    ready = {name: values for (name, _), values in zip(moment.where, moment.ready, strict=True)}
    for name, held in moment.where:
        if name not in part.touched:
            continue
        if not isinstance(held.placement, Replicate):  # it is sent to all, at the earliest when it is whole
            if moment.free.max() > ready[name].max():
                return False
        elif len(np.unique(np.maximum(moment.free, ready[name]))) > 1:
            return False
    return True


def _is_row_slice(moment: Moment, grid: str) -> bool:
    places = [held.placement for _, held in moment.where]
    return any(isinstance(p, Shard) and p.dim == "ffn" and p.grid and grid_name(p.grid) == grid for p in places)


def grid_options(array: ArrayConfig, groups: PeGroups) -> tuple[str, ...]:
    """The distributions of gate, up and down that cut both dims on this array; `row` and `col` cut one of them."""
    size = groups.size
    small = [ways for ways in range(1, isqrt(size) + 1) if size % ways == 0]
    divisors = sorted({*small, *(size // ways for ways in small)} - {1, size})
    return tuple(grid_name(ways) for ways in divisors if fits_grid(array, groups, ways))


def matrix_placement(operator: Linear, name: str) -> OperatorPlacement:
    """Where the inputs and outputs of an FFN's matrix are by `row`, `col` or a grid."""
    return distribution_for(operator, name, "search", operator.name).place(operator, "", 1)


def matrix_columns(operator: Linear, layouts: Layouts, name: str) -> tuple[IntArray, IntArray]:
    """(PEs,) inputs and outputs of the part of an FFN's matrix that each PE holds."""
    placement = matrix_placement(operator, name)
    inner = layouts.pe_columns(operator.in_dim, operator.in_size, placement.inputs[0])
    return inner, layouts.pe_columns(operator.out_dim, operator.out_size, placement.outputs[0])


def bias_columns(operator: Linear, layouts: Layouts, name: str) -> IntArray:
    """(PEs,) entries of the bias of an FFN's matrix that each PE keeps and adds; together they are the bias once."""
    place = matrix_placement(operator, name).outputs[0]
    own = place.own_part(operator.out_dim) if isinstance(place, Partial) else place
    return layouts.pe_columns(operator.out_dim, operator.out_size, own)
