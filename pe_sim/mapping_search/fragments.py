"""Places, lowers and weighs parts of a layer, each once for every placement it is entered with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.errors import InputError
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import Operator, Tensor
from pe_sim.mapping.footprint import bytes_on_pes
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import PlacedBlock, Value
from pe_sim.mapping.placement import Placement
from pe_sim.mapping.placer import BlockPlacer, end_plan, layer_plan
from pe_sim.mapping.transforms import Transforms
from pe_sim.mapping.workflow import LayerPlan, Workflow
from pe_sim.mapping_search.lower_bound import Machine, Timing
from pe_sim.mapping_search.space import NEUTRAL, Choice, Part, plan_of
from pe_sim.report.analysis.energy import Prices, energy_units, prices_of
from pe_sim.schedule.lowering import PieceLowering
from pe_sim.schedule.stages import Stage
from pe_sim.units import IntArray

_ANY = Workflow("search", "", (NEUTRAL,))


@dataclass(frozen=True, slots=True)
class Held:
    """Where a tensor is: its placement and, inside a layer, the PEs that hold some of it, a byte each."""

    placement: Placement
    holders: bytes | None = None


@dataclass(frozen=True, eq=False)
class Piece:
    """A part under one choice, entered with certain placements.

    Args:
        timing: the lower bound on its cycles, from any inputs.
        leaving: where the tensors are that it reads or writes and that live after it.
        scene, block, stages: what it is a part of, and what it is placed and lowered to.
    """

    timing: Timing
    leaving: tuple[tuple[str, Held], ...]
    scene: Scene
    block: PlacedBlock
    stages: tuple[Stage, ...]

    @cached_property
    def held_bytes(self) -> IntArray:
        """(PEs,) bytes of parameters and KV cache."""
        scene = self.scene
        return bytes_on_pes(self.block.nodes, scene.array, scene.layouts, cached=scene.graph.keeps_cache)

    @cached_property
    def energy(self) -> int:
        """Dynamic energy of its stages, its transforms' messages included; in units of `Report.energy_units`."""
        return sum(energy_units(((stage, 1) for stage in self.stages), self.scene.prices).values())


@dataclass(frozen=True, eq=False)
class Scene:
    """One step on one division of the PEs; remembers the pieces it has made."""

    array: ArrayConfig
    graph: OperatorGraph
    layouts: Layouts
    pieces: dict[tuple[object, ...], Piece | None] = field(default_factory=dict)

    @cached_property
    def watched_pe(self) -> int:
        """The PE by which the rest is judged: without dead PEs none has more to do or to keep than PE 0.

        With dead ones it is in the group with the fewest living, and may have no head where PEs share them.
        """
        groups = self.layouts.groups
        return int(groups.lowest[groups.living.argmin()])

    @cached_property
    def machine(self) -> Machine:
        """The machine on which the lower bound runs."""
        return Machine(self.array, self.layouts)

    @cached_property
    def _transforms(self) -> Transforms:
        return Transforms(self.array, self.layouts)

    @cached_property
    def _lowering(self) -> PieceLowering:
        return PieceLowering(self.array, self.layouts)

    @cached_property
    def prices(self) -> Prices:
        """Energy prices of what stages do."""
        return prices_of(self.array)

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        operators = (*self.graph.prologue, *self.graph.layer, *self.graph.epilogue)
        return {tensor.name: tensor for operator in operators for tensor in operator.outputs}

    def piece(self, part: Part, choice: Choice, before: Choice, entering: tuple[tuple[str, Held], ...]) -> Piece | None:
        """The piece of a part of a layer under one choice; None where no rule places it.

        Args:
            before: earlier choices that its placement depends on.
            entering: where the tensors are that the part reads.
        """
        key = (part.index, choice, before, entering)
        if key not in self.pieces:
            plan = plan_of(dict((*before, *choice)))
            self.pieces[key] = self._layer_piece(part, plan, entering)
        return self.pieces[key]

    def _layer_piece(self, part: Part, plan: LayerPlan, entering: tuple[tuple[str, Held], ...]) -> Piece | None:
        layer = self.graph.layer  # of this step: the part may be of another one with the same operators
        names = {operator.name for operator in part.operators}
        operators = tuple(operator for operator in layer if operator.name in names)
        placer = BlockPlacer(operators, layer_plan(_ANY, plan), self.layouts, self._transforms)
        values = [Value(0, self._tensors[name], held.placement) for name, held in entering]
        leaving = tuple(name for name in part.after if name in part.touched or _writes(operators, name))
        try:
            block = placer.place_part(values, leaving, layer[-1] if part.is_target else None)
        except (InputError, ValueError):
            return None
        return self._weighed(block, leaving, [held for _, held in entering])

    def prologue(self, stream: str) -> Piece:
        """The piece before the first layer; the stream leaves it whole, or by batch."""
        plan = replace(NEUTRAL, stream=stream)
        placer = BlockPlacer(self.graph.prologue, end_plan(_ANY, plan, prologue=True), self.layouts, self._transforms)
        return self._weighed(placer.place(()), ("stream",), [])

    def epilogue(self, lm_head: str, entering: Held) -> Piece | None:
        """The piece behind the last layer; None where no rule places it."""
        key = ("epilogue", lm_head, entering)
        if key not in self.pieces:
            plan = end_plan(replace(_ANY, lm_head=lm_head), NEUTRAL, prologue=False)
            placer = BlockPlacer(self.graph.epilogue, plan, self.layouts, self._transforms)
            value = Value(0, self._tensors["stream"], entering.placement)
            try:
                block = placer.place((value,))
            except (InputError, ValueError):
                self.pieces[key] = None
            else:
                self.pieces[key] = self._weighed(block, (), [entering])
        return self.pieces[key]

    def _weighed(self, block: PlacedBlock, leaving: Sequence[str], entering: Sequence[Held]) -> Piece:
        masks = [None if held.holders is None else np.frombuffer(held.holders, dtype=bool) for held in entering]
        lowered, holders = self._lowering.lower(block, masks)
        exits = zip(leaving, block.exits, holders, strict=False)
        places = tuple((name, Held(value.placement, mask.tobytes())) for name, value, mask in exits)
        return Piece(Timing.of(self.machine, lowered), places, self, block, lowered.stages)


def _writes(operators: Sequence[Operator], name: str) -> bool:
    return any(tensor.name == name for operator in operators for tensor in operator.outputs)
