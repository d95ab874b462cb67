"""Executes a placed graph, or one pass of it, on arrays: every PE from its own shards, every move for real."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from pe_sim.config.models.model import ModelConfig
from pe_sim.errors import InputError
from pe_sim.graph.graph import STREAM
from pe_sim.graph.operators import Argmax, Element, Embedding, KvAppend, Linear
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.mapper import PlacedPass
from pe_sim.mapping.placed import BlockRun, Move, MoveKind, Node, PlacedBlock, PlacedGraph, Value, Work
from pe_sim.mapping.placement import Placement, Replicate, Root, Shard
from pe_sim.numeric.arrays import Array, PlacementError
from pe_sim.numeric.attention import CacheSlice
from pe_sim.numeric.geometry import Geometry, HubPieces, Pieces
from pe_sim.numeric.moves import Mover, TrafficCounter, assemble
from pe_sim.numeric.reference import run_reference
from pe_sim.numeric.results import Execution, Observation, collect_results, result_of
from pe_sim.numeric.state_dict import Source, read_weights
from pe_sim.numeric.tokens import read_token_types, read_tokens
from pe_sim.numeric.weights import ModelWeights
from pe_sim.numeric.work import Worker
from pe_sim.units import IntArray

# ---- Execution of one pass of one array: from inputs and cache to the values that leave and the cache that stays.


CacheOf = Mapping[int, tuple[list[Array], list[Array]]]  # by layer of the pass: keys and values of every sequence
_TOKENS = Shard("token")


@dataclass(frozen=True)
class PassInputs:
    """The inputs of a pass.

    Args:
        model, weights: the array's share of the model, from the pass's first layer on.
        ids: (rows,) token ids, positions and token types.
        cached: (context, kv heads * head_dim) keys and values of every sequence before the pass.
        appended: caches that earlier passes left, by layer; they take the place of `cached`.
        received: by tensor, pieces that passes before it left.
        arrived: by tensor, (rows, size) whole tensors that came from other arrays to the root.
    """

    model: ModelConfig
    weights: ModelWeights
    ids: tuple[IntArray, ...]
    cached: CacheOf
    appended: Mapping[int, tuple[CacheSlice | None, ...]]
    received: Mapping[str, Pieces]
    arrived: Mapping[str, Array]


@dataclass(frozen=True)
class PassResults:
    """The results of a pass.

    Args:
        pieces: by tensor that leaves, its pieces when the pass is done.
        caches: by layer of the pass, each PE's part of the cache.
        wholes: the last (rows, size) of the tensors that a result is made of.
    """

    pieces: Mapping[str, Pieces]
    caches: Mapping[int, tuple[CacheSlice | None, ...]]
    wholes: Mapping[str, Array]


def execute_pass(work: PlacedPass, inputs: PassInputs, geometry: Geometry, counter: TrafficCounter) -> PassResults:
    """The results of a pass, run with real numbers.

    Raises:
        PlacementError: the placed pass cannot be executed.
    """
    placed, graph = work.placed, work.placed.graph
    received = {**inputs.received, **{name: to_root(geometry, whole) for name, whole in inputs.arrived.items()}}
    carried: list[Pieces] = []
    caches: dict[int, tuple[CacheSlice | None, ...]] = {}
    wholes: dict[str, Array] = {}
    kept = {result_of(inputs.model), "best", "pooled"}  # wholes that a result is made of
    held: dict[int, Pieces] = {}
    for run in placed.sequence:
        block = placed.blocks[run.block]
        held = {value.key: pieces for value, pieces in zip(block.entries, carried, strict=True)}
        layer_cache = None if run.layer is None else inputs.cached.get(run.layer)
        before = caches_before(block, geometry, layer_cache, causal=graph.keeps_cache)
        if run.layer is not None and run.layer in inputs.appended and before:
            before = _merged(before, inputs.appended[run.layer])
        worker = Worker(
            inputs.model,
            inputs.weights,
            geometry,
            run.layer,
            inputs.ids,
            graph.select,
            graph.keeps_cache,
            before,
            {},
            received,
        )
        layer = run.layer

        def look(node: Node, value: Value, pieces: Pieces, layer: int | None = layer) -> None:
            if isinstance(node.operator, KvAppend) and isinstance(node, Work) and layer is not None:
                caches[layer] = tuple(pieces)
            if value.tensor.name in kept and isinstance(node, Work):
                whole = assemble(geometry, value, pieces)
                if whole is not None:
                    wholes[value.tensor.name] = whole

        mover = Mover(placed.array, geometry, counter, inputs.weights, run.layer)
        run_nodes(block, held, worker, mover, look)
        carried = [piece_of(held, value, "the block after") for value in block.exits]
    return PassResults({name: held[value.key] for name, value in work.leaving.items()}, caches, wholes)


def _merged(
    before: tuple[CacheSlice | None, ...], appended: tuple[CacheSlice | None, ...]
) -> tuple[CacheSlice | None, ...]:
    """The caches that earlier passes left, after a check that they hold as much as `before`."""
    for wanted, given in zip(before, appended, strict=True):
        if wanted is not None and (given is None or not _alike(wanted, given)):
            raise PlacementError("a cache holds other tokens than the passes before have left")
    return appended


def _alike(left: CacheSlice, right: CacheSlice) -> bool:
    return [keys.shape for keys in left.keys] == [keys.shape for keys in right.keys]


def to_root(geometry: Geometry, whole: Array) -> Pieces:
    """The pieces of a whole tensor at the root: each group's rows."""
    bounds = np.asarray(geometry.layouts.groups.sequence_bounds)
    rows = np.concatenate(([0], np.cumsum(geometry.layouts.shape.new_lens)))[bounds]
    return HubPieces(whole[first:last] for first, last in pairwise(rows))


def at_root(work: PlacedPass, results: PassResults, name: str) -> Array:
    """A tensor that leaves a pass at the root, as a whole.

    Raises:
        PlacementError: it is not at the root.
    """
    if not isinstance(work.leaving[name].placement, Root):
        raise PlacementError(f"{name} leaves from {work.leaving[name].placement}, not from the root")
    return np.concatenate(list(results.pieces[name]))


def cache_by_token(
    geometry: Geometry, cached: tuple[list[Array], list[Array]], own: Mapping[int, int], appended: Pieces | None
) -> Pieces:
    """Each PE's part of a cache that is sharded by token.

    For sequences with new rows on this array it is what their pass left.

    Args:
        cached: keys and values of every sequence before the step.
        own: where sequences with new rows stand in `appended`.
    """
    keys, values = cached
    columns = np.arange(geometry.layouts.shape.num_kv_heads * geometry.layouts.shape.head_dim)

    def fill(pe: int) -> CacheSlice:
        before = geometry.attention("token", pe, causal=True).cached_slice(keys, values, columns)
        after: CacheSlice | None = None if appended is None else appended[pe]
        if after is None:
            return before
        parts = zip(before.keys, before.values, strict=True)
        merged = [(after.keys[own[at]], after.values[own[at]]) if at in own else part for at, part in enumerate(parts)]
        return CacheSlice(tuple(key for key, _ in merged), tuple(value for _, value in merged))

    return geometry.map(_TOKENS, fill)


# ---- Runs the nodes of one block: each takes what the ones before it gave, and every piece is checked.


Held = dict[int, Pieces]  # pieces by the key of their value


def run_node(node: Node, held: Held, worker: Worker, mover: Mover) -> None:
    """Runs a node, and adds the values it gives to those that are held.

    Raises:
        PlacementError: an input is not there, or an output is not what its placement says.
    """
    name = name_of(node)
    if isinstance(node, Move) and node.kind is MoveKind.WEIGHT_STREAM:
        outputs = mover.run(node, [])
        worker.streamed[node.operator.name] = outputs[0]
    else:
        inputs = [piece_of(held, value, name) for value in node.inputs]
        _check_inputs(node, inputs, worker.geometry)
        outputs = _guarded(name, mover if isinstance(node, Move) else worker, node, inputs)
    for value, pieces in zip(node.outputs, outputs, strict=True):
        worker.geometry.check(value, pieces, name)
        held[value.key] = pieces


def piece_of(held: Held, value: Value, who: str) -> Pieces:
    """The pieces that are held of a value; `who` needs it.

    Raises:
        PlacementError: nothing is.
    """
    if value.key not in held:
        raise PlacementError(f"{who} needs {value.tensor.name} as {value.placement}, which nothing gives")
    return held[value.key]


def caches_before(
    block: PlacedBlock, geometry: Geometry, cached: tuple[list[Array], list[Array]] | None, *, causal: bool
) -> tuple[CacheSlice | None, ...]:
    """Each PE's part of a layer's cache before the step; empty for a block that appends nothing to one.

    Args:
        cached: the (context, kv heads * head_dim) keys and values of every sequence; None outside the layers.
    """
    appends = (node for node in block.nodes if isinstance(node.operator, KvAppend) and isinstance(node, Work))
    work = next(appends, None)
    if work is None or cached is None:
        return ()
    (keys, values), source = cached, work.inputs[0]

    def fill(pe: int) -> CacheSlice:
        part = geometry.attention(work.distribution, pe, causal=causal)
        return part.cached_slice(keys, values, geometry.columns_of(source, pe))

    return geometry.map(work.outputs[0].placement, fill)


def name_of(node: Node) -> str:
    """The name of a node in messages."""
    if isinstance(node, Move):
        return node.label
    return (
        node.operator.name
        if node.function in ("matrix", node.operator.name)
        else f"{node.operator.name}: {node.function}"
    )


def _check_inputs(node: Node, inputs: list[Pieces], geometry: Geometry) -> None:
    if isinstance(node, Move) and node.kind is MoveKind.FORWARD:
        return
    for value, pieces in zip(node.inputs, inputs, strict=True):
        geometry.check(value, pieces, name_of(node))


def _guarded(name: str, runner: Mover | Worker, node: Any, inputs: list[Pieces]) -> list[Pieces]:
    """The outputs of a node; an error of NumPy becomes a PlacementError, as only a wrong placed graph causes one."""
    try:
        outputs: list[Pieces] = runner.run(node, inputs)
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise PlacementError(f"{name}: {error}") from error
    return outputs


NodeHook = Callable[[Node, Value, Pieces], None]


def run_nodes(block: PlacedBlock, held: Held, worker: Worker, mover: Mover, after: NodeHook) -> None:
    """Runs all nodes of a block in program order, and calls `after` with every value that one gives."""
    for node in block.nodes:
        run_node(node, held, worker, mover)
        for value in node.outputs:
            after(node, value, held[value.key])


# ---- Inputs of each lane of a placed graph: the ids of its rows, and the cache that is filled before the step.


@dataclass(frozen=True)
class Lane:
    """The sequences of one lane.

    Args:
        first_sequence: position of its first sequence in the batch.
        ids: (new rows,) token ids, positions and token types.
        cached: per layer the (context, kv heads * head_dim) keys and values of every sequence.
    """

    first_sequence: int
    ids: tuple[IntArray, ...]
    cached: list[tuple[list[Array], list[Array]]]


def lanes_of(
    placed: PlacedGraph,
    model: ModelConfig,
    weights: ModelWeights,
    tokens: list[IntArray],
    token_types: list[IntArray] | None,
) -> list[Lane]:
    """The lanes of a placed graph: one for the whole batch, or one for each sequence of a pipeline."""
    counts = {run.lane: len(placed.blocks[run.block].layouts.shape.new_lens) for run in placed.sequence}
    types = token_types or [np.zeros_like(ids) for ids in tokens]
    contexts = list(placed.graph.shape.context_lens)
    caches = [_context_of(model, weights, ids[:length]) for ids, length in zip(tokens, contexts, strict=True)]
    lanes, first = [], 0
    for lane in range(placed.lanes):
        mine = range(first, first + counts[lane])
        ids = (
            _stack([tokens[at][contexts[at] :] for at in mine]),
            _stack([np.arange(contexts[at], len(tokens[at])) for at in mine]),
            _stack([types[at][contexts[at] :] for at in mine]),
        )
        cached = [
            ([caches[at][layer][0] for at in mine], [caches[at][layer][1] for at in mine])
            for layer in range(model.num_layers)
        ]
        lanes.append(Lane(first, ids, cached))
        first += counts[lane]
    return lanes


def _context_of(model: ModelConfig, weights: ModelWeights, ids: IntArray) -> list[tuple[Array, Array]]:
    """(context, kv heads * head_dim) keys and values of each layer, computed by the unsharded reference."""
    if not len(ids):
        nothing = np.zeros((0, model.kv_size), dtype=weights.tables[0].dtype)
        return [(nothing, nothing)] * model.num_layers
    reference = run_reference(model, weights, [ids])[0]
    flat = (len(ids), model.kv_size)
    return [
        (keys.reshape(flat), values.reshape(flat))
        for keys, values in zip(reference.keys, reference.values, strict=True)
    ]


def _stack(parts: list[IntArray]) -> IntArray:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def execute_placed(
    placed: PlacedGraph,
    model: ModelConfig,
    weights: ModelWeights | Source,
    tokens: Any,
    *,
    dtype: str = "float32",
    token_types: Any = None,
    observe: bool = False,
) -> Execution:
    """The results of a placed step, run with real numbers.

    Args:
        placed: the step, as it is timed.
        model: the model that was placed.
        weights: a state dict, a safetensors path, or weights that were read before (in the dtype they were read in).
        tokens: (batch, prompt_len) ids, (batch, context_len + 1) in decode (and context_len + prompt_len in a chunk),
            or one list per sequence; the context fills the caches beforehand.
        dtype: float32 or float64, of all values and sums.
        token_types: as `tokens`, for models that have them; all 0 without.
        observe: whether to keep the values of every node, assembled.

    Raises:
        InputError: weights or tokens do not fit the model or the step.
        PlacementError: the placed graph cannot be executed.
    """
    _check_model(placed, model)
    read = weights if isinstance(weights, ModelWeights) else read_weights(model, weights, dtype)
    shape = placed.graph.shape
    ids, types = read_tokens(tokens, model, shape), read_token_types(token_types, model, shape)
    with np.errstate(all="ignore"):  # weights that are not finite give results that are not
        lanes = lanes_of(placed, model, read, ids, types)
        run = _Run(placed, model, read, lanes, observe)
        run.run()
        return collect_results(placed, model, run.finals, run.observations, run.counter.in_order())


@dataclass
class _Run:
    placed: PlacedGraph
    model: ModelConfig
    weights: ModelWeights
    lanes: list[Lane]
    observe: bool
    observations: list[Observation] = field(default_factory=list)
    finals: list[Observation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counter = TrafficCounter(self.placed.array.dtypes)
        self._wanted = {result_of(self.model), "best", "pooled"} - {STREAM}  # the stream is kept where it ends
        self._carried: dict[int, list[Pieces]] = {}
        self._geometries: dict[int, Geometry] = {}
        self._stream_layer: dict[int, int | None] = {}  # which layer gave the stream a lane carries
        self._ends: dict[int, tuple[Placement, Placement | None]] = {}  # of the embedding, and of the greedy choices

    def run(self) -> None:
        """Runs every block in program order."""
        last_of_lane = {run.lane: index for index, run in enumerate(self.placed.sequence)}
        for index, run in enumerate(self.placed.sequence):
            self._run_block(run, is_last=last_of_lane[run.lane] == index)
        self._check_ends()

    def _run_block(self, run: BlockRun, *, is_last: bool) -> None:
        block = self.placed.blocks[run.block]
        geometry = self._geometry(block.layouts)
        held = self._entries(run, block, geometry)
        if is_last and block.entries:
            self._keep_final(run, geometry, block.entries[0], held[block.entries[0].key])
        worker = self._worker(run, block, geometry)
        mover = Mover(self.placed.array, geometry, self.counter, self.weights, run.layer)

        def look(node: Node, value: Value, pieces: Pieces) -> None:
            self._note_ends(run, node, value)
            self._look(run, node, value, geometry, pieces)

        run_nodes(block, held, worker, mover, look)
        self._carried[run.lane] = [piece_of(held, value, "the block after") for value in block.exits]

    def _entries(self, run: BlockRun, block: PlacedBlock, geometry: Geometry) -> dict[int, Pieces]:
        """The pieces that the block before left, by the keys of this block's values."""
        carried = self._carried.get(run.lane, [])
        if len(carried) != len(block.entries):
            problem = f"block {run.block} takes {len(block.entries)} values, the one before it gave {len(carried)}"
            raise PlacementError(problem)
        if not _is_way(block):
            for value, pieces in zip(block.entries, carried, strict=True):
                geometry.check(value, pieces, "the block before")
        return {value.key: pieces for value, pieces in zip(block.entries, carried, strict=True)}

    def _worker(self, run: BlockRun, block: PlacedBlock, geometry: Geometry) -> Worker:
        lane = self.lanes[run.lane]
        graph = self.placed.graph
        cached = None if run.layer is None else lane.cached[run.layer]
        caches = caches_before(block, geometry, cached, causal=graph.keeps_cache)
        return Worker(
            self.model, self.weights, geometry, run.layer, lane.ids, graph.select, graph.keeps_cache, caches, {}
        )

    def _geometry(self, layouts: Layouts) -> Geometry:
        if id(layouts) not in self._geometries:
            self._geometries[id(layouts)] = Geometry(layouts)
        return self._geometries[id(layouts)]

    def _note_ends(self, run: BlockRun, node: Node, value: Value) -> None:
        """Notes which layer gave the stream, and the placements where tokens come in and go out."""
        if isinstance(node, Work) and value.tensor.name == STREAM:
            self._stream_layer[run.lane] = run.layer
        if isinstance(node.operator, Embedding) and isinstance(node, Work):
            self._ends[run.lane] = (value.placement, None)
        if isinstance(node.operator, Argmax) and value.tensor.element is Element.CANDIDATE:
            self._ends[run.lane] = (self._ends[run.lane][0], value.placement)

    def _check_ends(self) -> None:
        """Raises if the greedy choices end neither at the root nor where the next step looks up their embeddings."""
        for source, result in self._ends.values():
            everywhere = result == Replicate() and source != Root()
            if result not in (None, Root(), source) and not everywhere:
                problem = (
                    f"the greedy choices end as {result}, where nobody looks up the next step's embeddings ({source})"
                )
                raise PlacementError(problem)

    def _look(self, run: BlockRun, node: Node, value: Value, geometry: Geometry, pieces: Pieces) -> None:
        """Keeps a value that is a result of the step; with `observe`, every value that can be assembled."""
        wanted = value.tensor.name in self._wanted
        if not (self.observe or wanted) or _is_unfinished(node):
            return
        observed = self._observation(run, name_of(node), geometry, value, pieces)
        if observed is None:
            return
        if wanted and isinstance(node, Work):
            self.finals.append(observed)
        if self.observe:
            self.observations.append(observed)

    def _keep_final(self, run: BlockRun, geometry: Geometry, value: Value, pieces: Pieces) -> None:
        """Keeps the stream that leaves the last layer, which is an encoder's result."""
        assert value.tensor.name == STREAM
        observed = self._observation(run, "", geometry, value, pieces)
        if observed is not None:
            self.finals.append(observed)

    def _observation(
        self, run: BlockRun, name: str, geometry: Geometry, value: Value, pieces: Pieces
    ) -> Observation | None:
        whole = assemble(geometry, value, pieces)
        if whole is None:
            return None
        layer = self._stream_layer.get(run.lane) if value.tensor.name == STREAM else run.layer
        first = self.lanes[run.lane].first_sequence
        return Observation(run.layer, name, value.tensor, layer, first, geometry.layouts, whole)


def _is_way(block: PlacedBlock) -> bool:
    """Whether the block moves values to the next pipeline stage; its inputs are still where the last one left them."""
    return any(isinstance(node, Move) and node.kind is MoveKind.FORWARD for node in block.nodes)


def _is_unfinished(node: Node) -> bool:
    """Whether a node gives a product whose bias is still to be added; it has the same name as the sum."""
    return (
        isinstance(node, Work)
        and isinstance(node.operator, Linear)
        and node.operator.bias
        and node.function == "matrix"
    )


def _check_model(placed: PlacedGraph, model: ModelConfig) -> None:
    graph, shape = placed.graph, placed.graph.shape
    given = (model.num_layers, model.num_heads, model.num_kv_heads, model.head_dim)
    if given != (graph.num_layers, shape.num_heads, shape.num_kv_heads, shape.head_dim):
        raise InputError(f"the placed graph is not of {model.name}", path="model")
