"""Executes a placed graph on arrays: every PE from its own shards, every move for real."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pe_sim.config.model import ModelConfig
from pe_sim.errors import InputError
from pe_sim.graph.graph import STREAM
from pe_sim.graph.operators import Argmax, Embedding, Linear
from pe_sim.graph.tensors import Element
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import BlockRun, Move, MoveKind, Node, PlacedBlock, PlacedGraph, Value, Work
from pe_sim.mapping.placement import Placement, Replicate, Root
from pe_sim.numeric.arrays import PlacementError
from pe_sim.numeric.assemble import assemble
from pe_sim.numeric.blocks import caches_before, name_of, piece_of, run_nodes
from pe_sim.numeric.geometry import Geometry, Pieces
from pe_sim.numeric.lanes import Lane, lanes_of
from pe_sim.numeric.moves import Mover
from pe_sim.numeric.results import Execution, Observation, collect_results, result_of
from pe_sim.numeric.state_dict import Source, read_weights
from pe_sim.numeric.tokens import read_token_types, read_tokens
from pe_sim.numeric.traffic import TrafficCounter
from pe_sim.numeric.weights import ModelWeights
from pe_sim.numeric.work import Worker


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
    """Runs a placed step with real numbers.

    Args:
        placed: the step, as it is timed.
        model: that `placed` is of.
        weights: a state dict, a safetensors path, or weights that were read before (in the dtype they were read in).
        tokens: (batch, prompt_len) ids, (batch, context_len + 1) in decode (and context_len + prompt_len in a chunk),
            or one list per sequence; the context fills the caches beforehand.
        dtype: float32 or float64, of all values and sums.
        token_types: as `tokens`, for models that have them; all 0 without.
        observe: keep what every node gave, assembled.

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
        self._ends: dict[int, tuple[Placement, Placement | None]] = {}  # of the embedding and of the choices

    def run(self) -> None:
        """Every block in program order."""
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
        """What the block before left, by the keys of this block."""
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
        """Remembers which layer gave the stream, and where tokens come in and go out."""
        if isinstance(node, Work) and value.tensor.name == STREAM:
            self._stream_layer[run.lane] = run.layer
        if isinstance(node.operator, Embedding) and isinstance(node, Work):
            self._ends[run.lane] = (value.placement, None)
        if isinstance(node.operator, Argmax) and value.tensor.element is Element.CANDIDATE:
            self._ends[run.lane] = (self._ends[run.lane][0], value.placement)

    def _check_ends(self) -> None:
        """Choices end at the root, or where the next step looks their embeddings up."""
        for source, result in self._ends.values():
            everywhere = result == Replicate() and source != Root()
            if result not in (None, Root(), source) and not everywhere:
                problem = (
                    f"the greedy choices end as {result}, where nobody looks up the next step's embeddings ({source})"
                )
                raise PlacementError(problem)

    def _look(self, run: BlockRun, node: Node, value: Value, geometry: Geometry, pieces: Pieces) -> None:
        """Keeps logits and results; with `observe` everything that can be assembled."""
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
        """The stream that leaves the last layer: an encoder's result."""
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
    """Whether the block leads from one pipeline stage to the next: what enters it is where the stage before put it."""
    return any(isinstance(node, Move) and node.kind is MoveKind.FORWARD for node in block.nodes)


def _is_unfinished(node: Node) -> bool:
    """A product whose bias is still to come has the same name as the sum."""
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
