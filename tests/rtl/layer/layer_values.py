"""Where every unit holds what of a placed step's values, and what of it has to be there in the end.

Activations are int16, sums int32, candidates of an argmax (int32 value, int32 index). They lie feature after feature,
each with all its rows, so that a slice of the features is a part of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from pe_sim.config.models.model import ModelConfig
from pe_sim.graph.operators import Tensor
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import Move, PlacedGraph, Value, Work
from pe_sim.mapping.placement import Placement, Root
from pe_sim.schedule.stages import Stage
from tests.rtl.hardware import Hardware, UnfitError
from tests.rtl.layer.integer_model import IntegerInputs, IntegerStep, IntegerWeights, Key
from tests.rtl.programs.lowering import BUFFER_BYTES, MEMORY_BYTES, Case, Ready, Space

ACTIVATION, SUM, CANDIDATE = 2, 4, 8  # bytes


@dataclass(frozen=True)
class Held:
    """A value.

    Args:
        key: what it is in the integer model.
        addresses: by unit, of the first row of the first feature the unit has.
        columns: by unit, (first, how many) of the tensor's features.
        size: features of the whole tensor.
        rows: of each feature.
        width: bytes of an element.
        pitch: bytes from a feature to the next one.
        shift: by which a sum has to be shifted to become an activation.
        terms: whether a PE has but a term of it (or a slice, and zeros elsewhere).
    """

    key: Key
    addresses: Mapping[int, int]
    columns: Mapping[int, tuple[int, int]]
    size: int
    rows: int
    width: int
    pitch: int
    shift: int = 0
    terms: bool = False

    @property
    def is_dense(self) -> bool:
        """Whether nothing lies between its features."""
        return self.pitch == self.rows * self.width

    @property
    def whole_bytes(self) -> int:
        """Of the whole tensor."""
        return self.size * self.rows * self.width

    def elements(self, unit: int) -> int:
        """How many a unit has."""
        return self.columns[unit][1] * self.rows

    def offset(self, unit: int) -> int:
        """Bytes of the whole tensor before what a unit has."""
        return self.columns[unit][0] * self.rows * self.width

    def num_bytes(self, unit: int) -> int:
        """Of what a unit has.

        Raises:
            UnfitError: they do not lie together.
        """
        if not self.is_dense:
            raise UnfitError(f"the RTL has no access to some rows of {self.key[1]}")
        return self.elements(unit) * self.width

    def sliced(self, columns: Mapping[int, tuple[int, int]]) -> Held:
        """The same where it is, but of each unit only these features."""
        addresses = {
            unit: self.addresses[unit] + (first - self.columns[unit][0]) * self.pitch
            for unit, (first, _) in columns.items()
        }
        return replace(self, addresses=addresses, columns=columns)


@dataclass
class StepLowering:
    """What the lowering of a step knows; addresses are the same on all PEs."""

    placed: PlacedGraph
    model: ModelConfig
    weights: IntegerWeights
    inputs: IntegerInputs
    reference: IntegerStep
    case: Case
    layer: int | None = None
    values: dict[int, Held] = field(default_factory=dict)  # of the block, by the value's key
    all_values: list[Held] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hardware = Hardware.of(self.placed.array)
        self.spaces = {False: Space("buffer", BUFFER_BYTES), True: Space("buffer of the root", BUFFER_BYTES)}
        self.memory, self.root_memory = Space("memory", MEMORY_BYTES), Space("memory of the root", MEMORY_BYTES)

    @property
    def pes(self) -> range:
        """All PEs."""
        return range(self.placed.array.num_pes)

    @property
    def root(self) -> int:
        """The root's unit."""
        return self.case.root

    def hold(self, value: Value, held: Held) -> None:
        """Where a value is."""
        self.values[value.key] = held
        self.all_values.append(held)

    def new(
        self,
        value: Value,
        layouts: Layouts,
        width: int,
        key: Key | None = None,
        *,
        slices: Placement | None = None,
        shift: int = 0,
        terms: bool = False,
    ) -> Held:
        """A place for a value where its placement (or `slices`) says."""
        tensor = value.tensor
        columns = columns_of(tensor, slices or value.placement, layouts, self.pes, self.root)
        rows = rows_of(tensor, layouts)
        most = max(count for _, count in columns.values()) * rows * width
        address = self.spaces[self.root in columns].take(most)
        addresses = dict.fromkeys(columns, address)
        key = key or (self.layer, tensor.name)
        held = Held(key, addresses, columns, tensor.size, rows, width, rows * width, shift, terms)
        self.hold(value, held)
        return held

    def ask_for_reads(self) -> None:
        """Reads of everything that is nobody's term."""
        asked = set()
        for held in self.all_values:
            for unit, address in held.addresses.items():
                data = self._expected(held, unit)
                if data and (unit, address, len(data)) not in asked:
                    asked.add((unit, address, len(data)))
                    layer, name = held.key
                    self.case.read(name if layer is None else f"layers.{layer}.{name}", unit, address, data)

    def _expected(self, held: Held, unit: int) -> bytes:
        if held.terms or not held.is_dense:
            return b""
        if held.width == CANDIDATE:
            winners = self.reference.winners
            return winners.astype("<i4").tobytes() if winners is not None and held.rows == 1 else b""
        whole = (self.reference.tensors if held.width == ACTIVATION else self.reference.sums)[held.key]
        first, count = held.columns[unit]
        return np.ascontiguousarray(whole[:, first : first + count].T).astype(f"<i{held.width}").tobytes()


@dataclass(frozen=True)
class Job:
    """A node that takes time, with its stage, and when its inputs are there."""

    node: Work | Move
    stage: Stage
    order: int
    inputs: list[Ready]
    layouts: Layouts
    support: Mapping[int, Placement]


def rows_of(tensor: Tensor, layouts: Layouts) -> int:
    """Rows of a tensor."""
    return int(layouts.group_rows(tensor.rows)[0])


def columns_of(
    tensor: Tensor, placement: Placement, layouts: Layouts, pes: Iterable[int], root: int
) -> dict[int, tuple[int, int]]:
    """(first, how many) of a tensor's features every unit has.

    Raises:
        UnfitError: they are not neighbours.
    """
    if isinstance(placement, Root):
        return {root: (0, tensor.size)}
    columns = {}
    for pe in pes:
        indices = layouts.column_indices(tensor.dim, tensor.size, placement, pe)
        if len(indices) and int(indices[-1]) - int(indices[0]) != len(indices) - 1:
            raise UnfitError(f"the RTL has no slices of {tensor.name} that are not in one piece")
        columns[pe] = (int(indices[0]) if len(indices) else 0, len(indices))
    return columns
