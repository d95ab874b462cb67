"""Moves of arrays between PEs, joints and root, as a placed graph says: they are combined and counted on their way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.dtypes import Dtypes
from pe_sim.graph.operators import Element, Tensor
from pe_sim.mapping.placed import Move, MoveKind, Value
from pe_sim.mapping.placement import Joint, Partial, Replicate, Root, Shard
from pe_sim.numeric.arrays import Array, PlacementError
from pe_sim.numeric.geometry import Geometry, HubPieces, PePieces, Pieces
from pe_sim.numeric.weights import Matrix, ModelWeights
from pe_sim.trace import TagTraffic
from pe_sim.units import ceil_div

# ---- Functions of a joint on the arrays of its children: sum, max, and the merge of softmax partials.


# A softmax partial is (rows, heads * (2 + head_dim)): per row and head the maximum, the sum and the weighted values.
Combine = Callable[[Array, Array], Array]


def combiner(op: str, head_dim: int) -> Combine:
    """The function by which a joint combines two arrays; `head_dim` says where softmax partials of heads begin."""
    if op == "softmax":
        return lambda left, right: merge_softmax(left, right, head_dim)
    return {"sum": add, "max": larger}[op]


def combine_tree(arrays: Sequence[Array], arity: int, combine: Combine) -> Array:
    """At least one array combined level by level, `arity` neighbours at a joint."""
    level = list(arrays)
    while len(level) > 1:
        level = [_combine_all(level[first : first + arity], combine) for first in range(0, len(level), arity)]
    return level[0]


def add(left: Array, right: Array) -> Array:
    """The sum of two arrays; of candidates, which are zero outside their slices, field by field."""
    if left.dtype.names is None:
        total: Array = left + right
        return total
    both = left.copy()
    for name in left.dtype.names:
        both[name] += right[name]
    return both


def larger(left: Array, right: Array) -> Array:
    """The better of two candidates, element by element: the larger value, of equals the lower index; NaN wins."""
    wins = (right["value"] > left["value"]) | (np.isnan(right["value"]) & ~np.isnan(left["value"]))
    tied = (right["value"] == left["value"]) & (right["index"] < left["index"])
    chosen: Array = np.where(wins | tied, right, left)
    return chosen


def merge_softmax(left: Array, right: Array, head_dim: int) -> Array:
    """Two softmax partials over disjoint tokens merged into one; a maximum of -inf marks one without tokens."""
    shape = (len(left), left.shape[1] // (head_dim + 2), head_dim + 2)
    parts = [part.reshape(shape) for part in (left, right)]
    maximum = np.maximum(parts[0][..., :1], parts[1][..., :1])
    merged = np.zeros_like(parts[0])
    for part in parts:
        empty = part[..., :1] == -np.inf
        less = np.where(empty, 0, part[..., :1]) - np.where(empty, 0, maximum)
        merged[..., 1:] += np.where(empty, 0, np.exp(less)) * part[..., 1:]
    merged[..., :1] = maximum
    return merged.reshape(left.shape)


def _combine_all(arrays: Sequence[Array], combine: Combine) -> Array:
    result = arrays[0]
    for other in arrays[1:]:
        result = combine(result, other)
    return result


# ---- Assembly of pieces into whole tensors, for readers and proofs, which moves and counts nothing.


_SKIPPED_DIMS = ("score", "weight", "softmax_partial")


def assemble(geometry: Geometry, value: Value, pieces: Pieces) -> Array | None:
    """(rows of the block, size) whole tensor of a value; None if it has no such form (scores, caches, weights)."""
    tensor, placement = value.tensor, value.placement
    if tensor.dim in _SKIPPED_DIMS or tensor.size == 0:
        return None
    if isinstance(placement, Joint) and placement.scope != "group":
        return None
    if isinstance(placement, Root | Joint):
        return np.concatenate(pieces)
    if isinstance(placement, Replicate):
        return np.concatenate([pieces[pe] for pe in geometry.groups.lowest.tolist()])
    if isinstance(placement, Partial) and placement.held is not None:
        return _from_shards(geometry, value, placement, pieces)
    if isinstance(placement, Partial):
        combine = combiner(placement.op, geometry.layouts.shape.head_dim)
        return np.concatenate(
            [combine_tree([pieces[pe] for pe in pes], 2, combine) for pes in geometry.scopes("group")]
        )
    return _from_shards(geometry, value, placement, pieces)


def _from_shards(geometry: Geometry, value: Value, placement: Shard | Partial, pieces: Pieces) -> Array:
    """The whole tensor with every PE's slice at its place; terms of one slice are added up."""
    tensor = value.tensor
    rows = int(geometry.layouts.row_prefix(tensor.rows)[-1])
    whole = np.zeros((rows, tensor.size), dtype=pieces[geometry.members[0]].dtype)
    for pe in geometry.members:
        columns = slice(None) if placement == Shard("batch") else geometry.columns_of(value, pe)
        place = geometry.rows(tensor.rows, placement, pe), columns
        whole[place] = whole[place] + pieces[pe] if isinstance(placement, Partial) else pieces[pe]
    return whole


# ---- Counts of messages by tag, from the arrays that are really moved.


TAGS = (
    "broadcast",
    "multicast",
    "scatter",
    "gather",
    "all-gather",
    "all-to-all",
    "reduce",
    "unicast",
    "weight-stream",
)
_STATISTIC_BITS = 32  # fp32
_CANDIDATE_BITS = 64  # fp32 value and int32 index


@dataclass
class TrafficCounter:
    """Counts messages and bytes by tag; a message of no bytes is not sent."""

    dtypes: Dtypes
    by_tag: dict[str, TagTraffic] = field(default_factory=dict)

    def count(self, tag: str, parts: Iterable[tuple[Tensor, Array]], *, partial: bool = False) -> None:
        """Counts one message of the arrays of several tensors, each of which rounds up to bytes on its own."""
        parts = tuple(parts)
        self.count_bytes(tag, sum(ceil_div(array.size * self._bits(tensor, partial), 8) for tensor, array in parts))

    def count_bytes(self, tag: str, num_bytes: int) -> None:
        """Counts one message of so many bytes."""
        if num_bytes:
            self.by_tag.setdefault(tag, TagTraffic()).add(num_bytes, 0)

    def in_order(self) -> dict[str, TagTraffic]:
        """Traffic by tag in the order of the contract, only tags that were used."""
        return {tag: self.by_tag[tag] for tag in TAGS if tag in self.by_tag}

    def _bits(self, tensor: Tensor, partial: bool) -> int:
        if tensor.element is Element.STATISTIC:
            return _STATISTIC_BITS
        if tensor.element is Element.CANDIDATE:
            return _CANDIDATE_BITS
        partial = partial or tensor.element is Element.TERM
        return self.dtypes.partial.bits if partial else self.dtypes.activation.bits


_BATCH = Shard("batch")


@dataclass(frozen=True)
class Mover:
    """Executes the moves of one block; pieces are in the order of the move's tensors."""

    array: ArrayConfig
    geometry: Geometry
    counter: TrafficCounter
    weights: ModelWeights
    layer: int | None

    def run(self, move: Move, inputs: list[Pieces]) -> list[Pieces]:
        """The pieces of the move's outputs."""
        methods: dict[MoveKind, Callable[[Move, list[Pieces]], list[Pieces]]] = {
            MoveKind.LOCAL: self._local,
            MoveKind.REDUCE: self._reduce,
            MoveKind.BROADCAST: self._broadcast,
            MoveKind.SCATTER: self._scatter,
            MoveKind.GATHER: self._gather,
            MoveKind.ALL_GATHER: self._all_gather,
            MoveKind.UNICAST: self._unicast,
            MoveKind.FORWARD: self._forward,
            MoveKind.WEIGHT_STREAM: self._weight_stream,
        }
        return methods[move.kind](move, inputs)

    # ------------------------------------------------------------------------------------------ nothing on the wires
    def _local(self, move: Move, inputs: list[Pieces]) -> list[Pieces]:
        return [
            self._local_one(source, target, pieces)
            for source, target, pieces in zip(move.inputs, move.outputs, inputs, strict=True)
        ]

    def _local_one(self, source: Value, target: Value, pieces: Pieces) -> Pieces:
        geometry = self.geometry
        if geometry.groups.is_lone and not isinstance(source.placement, Root) and source.tensor == target.tensor:
            return pieces  # with one PE a group all placements are the same thing
        match source.placement, target.placement:
            case Replicate(), Shard():
                return geometry.map(target.placement, lambda pe: self._cut(target, pieces[pe], pe))
            case Replicate(), Partial():
                return geometry.map(target.placement, lambda pe: self._keep_own_slice(source, pieces[pe], pe))
            case Shard() | Partial(), Partial():
                return geometry.map(target.placement, lambda pe: self._pad(source, pieces[pe], pe))
        raise PlacementError(f"{move_name(source, target)}: no PE can do this on its own")

    def _cut(self, target: Value, whole: Array, pe: int) -> Array:
        """The PE's slice of its group's whole tensor."""
        if target.placement == _BATCH:
            return whole[self.geometry.rows_in_group(target.tensor.rows, target.placement, pe)]
        return whole[:, self.geometry.columns_of(target, pe)]

    def _keep_own_slice(self, source: Value, whole: Array, pe: int) -> Array:
        columns = self.geometry.own_slice(source.tensor, pe)
        kept = np.zeros_like(whole)
        kept[:, columns] = whole[:, columns]
        return kept

    def _pad(self, source: Value, piece: Array, pe: int) -> Array:
        """The PE's slice with zeros around it; zeros alone if a PE before it in its group holds the same slice."""
        whole = self._empty(source, self.geometry.group_of(pe), piece)
        if self.geometry.is_first_holder(source.placement, pe):
            whole[self._place_of(source, pe)] = piece
        return whole

    # -------------------------------------------------------------------------------------------------------- the tree
    def _reduce(self, move: Move, inputs: list[Pieces]) -> list[Pieces]:
        combine = combiner(move.combine, self.geometry.layouts.shape.head_dim)
        outputs: list[list[Array]] = [[] for _ in inputs]
        for scope in self.geometry.scopes(move.scope):
            members = [pe for pe in scope if self._contributes(move, pe)]
            for output, pieces in zip(outputs, inputs, strict=True):
                terms = [pieces[pe] for pe in members]
                if len({term.shape for term in terms}) != 1:
                    raise PlacementError(f"{move.label}: the PEs' terms differ in shape")
                output.append(combine_tree(terms, self.array.network.arity, combine))
            sent = [(value.tensor, output[-1]) for value, output in zip(move.inputs, outputs, strict=True)]
            self.counter.count("reduce", sent, partial=move.partial_dtype)
        return [HubPieces(output) for output in outputs]

    def _contributes(self, move: Move, pe: int) -> bool:
        """Whether a PE contributes to a reduction: one that shares a head but got none of its dims does not."""
        return move.scope != "head" or int(self.geometry.layouts.head_split.pair_count[pe]) > 0

    # -------------------------------------------------------------------------------------------------- root and joints
    def _broadcast(self, move: Move, inputs: list[Pieces]) -> list[Pieces]:
        scopes = self.geometry.scopes(move.scope)
        outputs = [self._idle_pieces(pieces) for pieces in inputs]
        for index, scope in enumerate(scopes):
            for output, pieces in zip(outputs, inputs, strict=True):
                for pe in scope:
                    output[pe] = pieces[index]
            tag = "broadcast" if self.geometry.is_whole_array(move.scope) else "multicast"
            sent = [(value.tensor, pieces[index]) for value, pieces in zip(move.inputs, inputs, strict=True)]
            self.counter.count(tag, sent)
        return [PePieces(output) for output in outputs]

    def _scatter(self, move: Move, inputs: list[Pieces]) -> list[Pieces]:
        outputs = [self._nothing() for _ in inputs]
        for pe in self.geometry.members:
            group = self.geometry.group_of(pe)
            cut = [self._cut(value, pieces[group], pe) for value, pieces in zip(move.outputs, inputs, strict=True)]
            for output, piece in zip(outputs, cut, strict=True):
                output[pe] = piece
            self.counter.count("scatter", zip((value.tensor for value in move.outputs), cut, strict=True))
        return [PePieces(output) for output in outputs]

    def _weight_stream(self, move: Move, _: list[Pieces]) -> list[Pieces]:
        """Moves the root's matrix with its bias to every PE, in one message."""
        matrix = self.weights.matrix(self.layer, move.operator.name)
        self.counter.count_bytes("weight-stream", _matrix_bytes(matrix, self.array))
        dead = frozenset(self.array.dead_pes)
        return [PePieces(None if pe in dead else matrix for pe in range(self.array.num_pes))]

    # ------------------------------------------------------------------------------------------------------------- PEs
    def _gather(self, move: Move, inputs: list[Pieces]) -> list[Pieces]:
        self._count_senders("gather", move, inputs)
        return [self._collect(value, pieces, move) for value, pieces in zip(move.inputs, inputs, strict=True)]

    def _all_gather(self, move: Move, inputs: list[Pieces]) -> list[Pieces]:
        self._count_senders("all-gather", move, inputs)
        wholes = [self._collect(value, pieces, move) for value, pieces in zip(move.inputs, inputs, strict=True)]
        return [self._to_group(whole) for whole in wholes]

    def _unicast(self, move: Move, inputs: list[Pieces]) -> list[Pieces]:
        """Moves the copy of the lowest PE of each group to the root."""
        senders = self.geometry.groups.lowest.tolist()
        for pe in senders:
            self.counter.count("unicast", self._of_pe(move, inputs, pe))
        return [HubPieces(pieces[pe] for pe in senders) for pieces in inputs]

    def _forward(self, move: Move, inputs: list[Pieces]) -> list[Pieces]:
        """Moves one PE's copy to all PEs of the next pipeline stage."""
        if any(isinstance(pieces, HubPieces) or pieces[move.sender] is None for pieces in inputs):
            raise PlacementError(f"{move.label}: PE {move.sender} has nothing to send")
        self.counter.count("unicast", self._of_pe(move, inputs, move.sender))
        return [self._to_group(HubPieces((pieces[move.sender],))) for pieces in inputs]

    def _to_group(self, wholes: HubPieces) -> Pieces:
        """Pieces on PEs: every PE gets its group's copy."""
        return self.geometry.map(Replicate(), lambda pe: wholes[self.geometry.group_of(pe)])

    def _count_senders(self, tag: str, move: Move, inputs: list[Pieces]) -> None:
        for pe in self.geometry.members:
            self.counter.count(tag, self._of_pe(move, inputs, pe))

    def _of_pe(self, move: Move, inputs: list[Pieces], pe: int) -> list[tuple[Tensor, Array]]:
        return [(value.tensor, pieces[pe]) for value, pieces in zip(move.inputs, inputs, strict=True)]

    def _collect(self, value: Value, pieces: Pieces, move: Move) -> HubPieces:
        """(groups,) whole tensors from pieces on PEs; raises unless every element comes from exactly one PE."""
        wholes = []
        for group, scope in enumerate(self.geometry.scopes("group")):
            whole = self._empty(value, group, pieces[scope[0]])
            arrivals = np.zeros(whole.shape, dtype=np.int64)
            for pe in scope:
                whole[self._place_of(value, pe)] = pieces[pe]
                arrivals[self._place_of(value, pe)] += 1
            if (arrivals != 1).any():
                raise PlacementError(f"{move.label}: the slices of group {group} do not tile the tensor")
            wholes.append(whole)
        return HubPieces(wholes)

    def _empty(self, value: Value, group: int, like: Array) -> Array:
        """Zeros for a group's whole tensor."""
        rows = self.geometry.group_rows(value.tensor.rows, group)
        return np.zeros((rows.stop - rows.start, value.tensor.size), dtype=like.dtype)

    def _place_of(self, value: Value, pe: int) -> tuple[slice, Any]:
        """The rows and columns of a PE's shard in its group's whole tensor."""
        rows = self.geometry.rows_in_group(value.tensor.rows, value.placement, pe)
        return rows, slice(None) if value.placement == _BATCH else self.geometry.columns_of(value, pe)

    def _nothing(self) -> list[Array | None]:
        return [None] * self.array.num_pes

    def _idle_pieces(self, pieces: Pieces) -> list[Array | None]:
        """Pieces of PEs that get nothing: an empty array for members, None for all others."""
        output = self._nothing()
        for pe in self.geometry.members:
            output[pe] = pieces[0][:0]
        return output


def move_name(source: Value, target: Value) -> str:
    """The name of a transform in messages."""
    return f"{source.tensor.name} from {source.placement} to {target.placement}"


def _matrix_bytes(matrix: Matrix, array: ArrayConfig) -> int:
    """Bytes of a matrix with its scales, and of its bias, in the weights' dtype; each rounds up on its own."""
    weight = array.dtypes.weight
    bias = 0 if matrix.bias is None else int(weight.num_bytes(matrix.bias.size))
    return int(weight.matrix_bytes(*matrix.weight.shape)) + bias
