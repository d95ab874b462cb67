"""The placed graph: local work and moves in program order, the one thing that is timed and executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, ParamSpec, TypeVar

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import Operator, Tensor
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placement import Placement, Scope

# ---- Which nodes differ in names alone: what holds for the sizes and costs of one of them holds for all.


_NAMES = ("name", "inputs", "outputs", "bundle")  # fields of operators; the outputs count without their names


def likeness(node: Node, support: Mapping[int, Placement]) -> tuple[object, ...]:
    """Key that is equal for nodes that do the same to operands of the same sizes in the same placements.

    Args:
        node: local work, or a move.
        support: which slices of Partial values are not zero, by the value's key.
    """
    operands = tuple(
        tuple((*_nameless(value.tensor), value.placement, support.get(value.key)) for value in values)
        for values in (node.inputs, node.outputs)
    )
    if isinstance(node, Work):
        return (*_facts(node.operator), node.function, node.distribution, operands)
    return (*_facts(node.operator), node.kind, node.scope, node.partial_dtype, node.combine, node.sender, operands)


def _facts(operator: Operator) -> tuple[object, ...]:
    outputs = tuple(_nameless(tensor) for tensor in operator.outputs)
    rest = tuple(getattr(operator, entry.name) for entry in fields(operator) if entry.name not in _NAMES)
    return (type(operator), len(operator.inputs), outputs, rest)


def _nameless(tensor: Tensor) -> tuple[object, ...]:
    return (tensor.dim, tensor.size, tensor.rows, tensor.element)


# ---- Results that are kept for a placed graph: takes a key and a function, gives what it made of an equal key.
#
# A sweep asks the same of one placed graph again and again. What follows from the graph stays with the graph: nobody
# has to throw it away, and it goes when the graph goes. How much stays is bounded by the size of the graph's arrays.


_P = ParamSpec("_P")
_T = TypeVar("_T")

_MOST = 8  # results of one function: design points of a sweep take turns between fewer
_ENTRIES = 2**14  # PEs times blocks times results of one function: some 300 bytes of arrays each, 5 MB in all


class Memo:
    """The latest results of a few functions; keys are compared, not hashed, for arrays hold dicts."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._results: dict[Callable[..., Any], list[tuple[object, Any]]] = {}

    def recall(self, key: object, make: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What `make` gives for these arguments, or gave when the key was equal.

        Args:
            key: everything the result depends on beside what the memo belongs to.
            make: a function that lives as long as the program.
        """
        results = self._results.setdefault(make, [])
        for index, (known, result) in enumerate(results):
            if known == key:
                if index:
                    results.insert(0, results.pop(index))
                kept: _T = result
                return kept
        made = make(*args, **kwargs)
        results.insert(0, (key, made))
        del results[self._limit :]
        return made


@dataclass(frozen=True, eq=False, slots=True)
class Kept:
    """What stays with a placed graph.

    Args:
        blocks: of the graph; a graph with other blocks starts anew.
        nodes: what follows from the nodes alone, shared by graphs with the same nodes in other layouts.
        layouts: what follows from nodes and layouts, shared by graphs that differ in their array only.
        heavy: as `layouts`, for what has more than a few entries a PE.
    """

    blocks: tuple[object, ...] = ()
    nodes: Memo = field(default_factory=lambda: Memo(1))
    layouts: Memo = field(default_factory=lambda: Memo(0))
    heavy: Memo = field(default_factory=lambda: Memo(0))

    @classmethod
    def of(cls, blocks: tuple[object, ...], num_pes: int, nodes: Memo | None = None) -> Kept:
        """Memos with room for the arrays of `blocks` over `num_pes` PEs."""
        limit = min(_MOST, _ENTRIES // (num_pes * len(blocks)))
        return cls(blocks, nodes or Memo(1), Memo(limit), Memo(min(limit, 1)))


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
        """Its name for people, such as: reduce gate+up."""
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
        """Starts `kept` anew where the blocks are not those of the graph it was copied from."""
        if self.kept.blocks is not self.blocks:
            object.__setattr__(self, "kept", Kept.of(self.blocks, self.array.num_pes))
