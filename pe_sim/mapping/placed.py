"""The placed graph: local work and moves in program order, the one thing that is timed and executed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from pe_sim.config.array import ArrayConfig
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import Operator
from pe_sim.graph.tensors import Tensor
from pe_sim.mapping.kept import Kept
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placement import Placement, Scope


class MoveKind(StrEnum):
    """The primitive steps of a transform."""

    LOCAL = "local"  # a slice is kept or zeros are assumed elsewhere: free
    REDUCE = "reduce"  # PEs -> root or joint through the tree
    BROADCAST = "broadcast"  # root or joint -> PEs, one message a scope
    SCATTER = "scatter"  # root or joint -> PEs, one message a PE
    GATHER = "gather"  # PEs -> root, one message a PE
    ALL_GATHER = "all-gather"  # every PE drives its shard, all listen
    UNICAST = "unicast"  # one PE -> root
    FORWARD = "forward"  # the lowest PE of one pipeline stage -> the PEs of the next
    WEIGHT_STREAM = "weight-stream"  # the root's copy of a matrix -> all PEs


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor in one placement; `key` is unique inside its block."""

    key: int
    tensor: Tensor
    placement: Placement


@dataclass(frozen=True, slots=True)
class Work:
    """Local work: `function` of `operator` where its output is (for Partial: on every PE)."""

    operator: Operator
    function: str
    distribution: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Move:
    """One primitive of a transform; the tensors of `inputs` travel as one concatenated message.

    Args:
        operator: the operator that asked for it.
        scope: group, head for the PEs that share a query head, or so many neighbours.
        partial_dtype: whether the payload travels in the partial dtype.
        combine: how joints combine (sum, max, softmax); empty where nothing is combined.
        sender: the PE that sends, for FORWARD.
        after: values that must be complete everywhere before the message may be requested.
    """

    operator: Operator
    kind: MoveKind
    scope: Scope
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    partial_dtype: bool = False
    combine: str = ""
    sender: int = 0
    after: tuple[Value, ...] = ()

    @property
    def label(self) -> str:
        """What a person calls it: reduce gate+up."""
        return f"{self.kind.value} {'+'.join(value.tensor.name for value in self.inputs)}"


Node = Work | Move


@dataclass(frozen=True, slots=True)
class PlacedBlock:
    """Nodes of a prologue, a layer, an epilogue or the way between two pipeline stages.

    Args:
        nodes: in program order.
        entries, exits: values it takes from the block before it and gives to the one after; the stream comes first.
        layouts: how its tensors are cut.
    """

    nodes: tuple[Node, ...]
    entries: tuple[Value, ...]
    exits: tuple[Value, ...]
    layouts: Layouts


@dataclass(frozen=True, slots=True)
class BlockRun:
    """One run of a block: `layer` is None outside the layers, `lane` says whose stream it carries on."""

    block: int
    layer: int | None
    lane: int = 0


@dataclass(frozen=True, slots=True)
class PlacedGraph:
    """Distinct blocks, and their runs in program order.

    Args:
        lanes: streams that go through the layers on their own; each owns the sequences of its blocks' layouts.
        kept: what has been worked out for these blocks; a copy on another array has the same.
    """

    array: ArrayConfig
    graph: OperatorGraph
    blocks: tuple[PlacedBlock, ...]
    sequence: tuple[BlockRun, ...]
    lanes: int = 1
    kept: Kept = field(default_factory=Kept, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Other blocks than those of the graph it was copied from have nothing in common with them."""
        if self.kept.blocks is not self.blocks:
            object.__setattr__(self, "kept", Kept.of(self.blocks, self.array.num_pes))
