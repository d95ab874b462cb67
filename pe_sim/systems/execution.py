"""Executes a script with real numbers, every array from its own shards; and proves a plan so on a small model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pe_sim.config.models.model import ModelConfig
from pe_sim.config.plans.plan import Degrees, ParallelPlan
from pe_sim.config.step import Prefill, Step
from pe_sim.config.systems.system import SystemConfig
from pe_sim.engine.engines import DEFAULT_ENGINE
from pe_sim.errors import InputError
from pe_sim.graph.graph import STREAM
from pe_sim.graph.parts import attention_shape
from pe_sim.graph.shares import Meeting, OperatorShare, head_share
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.workflow import Workflow
from pe_sim.numeric.arrays import Array, PlacementError
from pe_sim.numeric.executor import (
    PassInputs,
    PassResults,
    at_root,
    cache_by_token,
    execute_pass,
    execute_placed,
)
from pe_sim.numeric.geometry import Geometry, Pieces
from pe_sim.numeric.moves import TrafficCounter, combine_tree, combiner
from pe_sim.numeric.proof import (
    TOLERANCE,
    Proof,
    Verdict,
    describe_step,
    proof_steps,
    random_tokens,
    scaled_down,
    verdict_of,
)
from pe_sim.numeric.reference import run_reference
from pe_sim.numeric.results import Execution, padded, result_of
from pe_sim.numeric.state_dict import Source, random_weights, read_weights
from pe_sim.numeric.tokens import read_token_types, read_tokens
from pe_sim.numeric.weights import ModelWeights, from_layer, kv_columns, shared_weights
from pe_sim.systems.deployment import Deployment
from pe_sim.systems.microbatches import OwnSpan, Row, Span, batch_share, listed, next_rows
from pe_sim.systems.passes import CACHE
from pe_sim.systems.script import CHOICES, TOKENS, MeetingAction, Move, PassAction, Script
from pe_sim.systems.simulation import SystemRun, prepared, run_system, system_report
from pe_sim.systems.timing import CANDIDATE_BITS, TOKEN_BITS
from pe_sim.trace import total_traffic
from pe_sim.units import IntArray, ceil_div

_Key = tuple[int, int]  # an array, and the part that it works on
_Cached = tuple[list[Array], list[Array]]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a tensor."""

    rows: tuple[Row, ...]
    values: Array

    def by_row(self) -> dict[Row, Array]:
        return dict(zip(self.rows, self.values, strict=True))


def execute_script(
    script: Script, weights: ModelWeights | Source, tokens: Any, *, dtype: str = "float32", token_types: Any = None
) -> Execution:
    """Runs a step on several arrays with real numbers.

    Args:
        weights, tokens, dtype, token_types: as of `execute_placed`.

    Raises:
        InputError: weights or tokens do not fit the model or the step.
        PlacementError: the script cannot be executed.
    """
    model, shape = script.model, attention_shape(script.model, script.step)
    read = weights if isinstance(weights, ModelWeights) else read_weights(model, weights, dtype)
    ids, types = read_tokens(tokens, model, shape), read_token_types(token_types, model, shape)
    with np.errstate(all="ignore"):  # weights that are not finite give results that are not
        run = _Run(script, read, ids, types or [np.zeros_like(each) for each in ids])
        run.run()
        return run.result()


@dataclass
class _Run:
    script: Script
    weights: ModelWeights
    ids: list[IntArray]
    types: list[IntArray]
    counters: dict[int, TrafficCounter] = field(default_factory=dict)
    held: dict[_Key, dict[str, Pieces]] = field(default_factory=dict)
    left: dict[_Key, dict[str, _Rows]] = field(default_factory=dict)  # at the roots, to be exchanged
    arrived: dict[_Key, dict[str, dict[Row, Array]]] = field(default_factory=dict)
    appended: dict[tuple[int, int], tuple[tuple[int, ...], Any]] = field(default_factory=dict)
    logits: dict[Row, dict[int, Array]] = field(default_factory=dict)
    best: dict[Row, Any] = field(default_factory=dict)
    chosen: set[tuple[int, Row]] = field(default_factory=set)  # rows whose next token an array knows
    pooled: dict[int, Array] = field(default_factory=dict)
    hidden: dict[Row, Array] = field(default_factory=dict)  # the results of a model without an LM head
    _shares: dict[tuple[OperatorShare, OperatorShare], ModelWeights] = field(default_factory=dict)
    _geometries: dict[int, Geometry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model = self.script.model
        # Run on whole sequences: what is in a cache before a later chunk is what an earlier one puts there.
        wholes = run_reference(model, self.weights, self.ids, self.types)
        self._keys = [[keys.reshape(len(keys), -1) for keys in whole.keys] for whole in wholes]
        self._values = [[values.reshape(len(values), -1) for values in whole.values] for whole in wholes]

    def run(self) -> None:
        """Runs every action in program order."""
        for action in self.script.actions:
            if not isinstance(action, PassAction):
                self._meet(action)
            elif self.script.workflow.pipelined:
                self._whole_step(action)
            else:
                self._pass(action)
        self._check_tokens()

    def _check_tokens(self) -> None:
        """Raises PlacementError unless every array has the tokens that it looks up in the next step."""
        if not self.script.model.has_lm_head:
            return
        for line, parts in zip(self.script.deployment.pipelines, self.script.parts, strict=True):
            ends = [each for part in parts if part.is_last for each in next_rows(line.stages[0], part)]
            for rank, (sequence, position) in ends:
                if (rank, (sequence, position - 1)) not in self.chosen:
                    raise PlacementError(f"array {rank} does not get the next token of sequence {sequence}")

    # ------------------------------------------------------------------------------------------------------- passes
    def _pass(self, action: PassAction) -> None:
        does, key = action.run.does, (action.array, action.part)
        rows = self._rows_of(action)
        geometry = self._geometry(does.layouts)
        first = action.first_layer + action.run.layer
        share = self._weights(action.share, action.vocabulary)
        inputs = PassInputs(
            model=self.script.model,
            weights=from_layer(share, first),
            ids=self._ids(listed(action.own)),
            cached=self._caches(action, first),
            appended=self._left_caches(action, first),
            received={name: self._kept(action, name, geometry, first) for name in does.kept},
            arrived={name: self._arrival(key, name, rows) for name in does.received},
        )
        done = execute_pass(does.work, inputs, geometry, self._counter(action.array))
        self._keep(action, first, done)
        if does.sends:
            self.left.setdefault(key, {})[does.sends] = _Rows(rows, at_root(does.work, done, does.sends))
        self._look(action, rows, done)

    def _whole_step(self, action: PassAction) -> None:
        """Runs all layers on one array, whose PEs are a pipeline of their own."""
        sequences = [span.sequence for span in action.own]
        ids, types = ([whole[at] for at in sequences] for whole in (self.ids, self.types))
        placed, model = action.run.does.work.placed, self.script.model
        done = execute_placed(placed, model, self.weights, ids, token_types=types if model.type_vocab_size else None)
        counter = self._counter(action.array)
        counter.by_tag.update(total_traffic([(counter.by_tag, 1), (done.traffic, 1)]))
        for at, span in enumerate(action.own):
            count = done.row_counts[at]
            rows = [(span.sequence, position) for position in span.positions[-count:]]
            if done.pooled is not None:
                self.pooled[span.sequence] = done.pooled[at]
            if done.best_tokens is None:
                self.hidden.update(zip(rows, done.logits[at], strict=False))
            else:
                self.chosen.update((action.array, row) for row in rows)
                for row, logits, best in zip(rows, done.logits[at], done.best_tokens[at], strict=False):
                    self.logits[row], self.best[row] = {0: logits}, {"index": [best]}

    def _rows_of(self, action: PassAction) -> tuple[Row, ...]:
        """The rows a pass works on: the array's own, or those of all arrays that share the sequences."""
        if action.run.does.layouts is not action.run.does.local.token_layouts:
            return listed(action.own)
        spans = self._shared(action)
        return tuple((span.sequence, span.context_len + row) for span in spans for row in range(span.new_len))

    def _shared(self, action: PassAction) -> tuple[Span, ...]:
        """The new rows of the sequences of which the array has tokens."""
        part = self.script.parts[action.pipeline][action.part]
        return batch_share(part, action.degrees.dp, action.place.batch)

    def _ids(self, rows: Sequence[Row]) -> tuple[IntArray, ...]:
        tokens = np.array([self.ids[sequence][position] for sequence, position in rows], dtype=np.int64)
        types = np.array([self.types[sequence][position] for sequence, position in rows], dtype=np.int64)
        return tokens, np.array([position for _, position in rows], dtype=np.int64), types

    def _caches(self, action: PassAction, first: int) -> dict[int, _Cached]:
        """By layer of the pass, the K and V that the array has of its own sequences before their new rows."""
        columns = kv_columns(self.script.model, action.share)
        layers = range(first, min(first + self._layers_of(action), self.script.model.num_layers))
        return {layer - first: self._own_cache(action.own, layer, columns) for layer in layers}

    def _layers_of(self, action: PassAction) -> int:
        return 1 + max((run.layer for run in action.run.does.work.placed.sequence if run.layer is not None), default=-1)

    def _own_cache(self, own: Sequence[OwnSpan], layer: int, columns: slice) -> _Cached:
        keys, values = [], []
        for span in own:
            stride = span.positions.step
            held = np.arange(span.positions.start % stride, span.positions.start, stride)
            keys.append(self._keys[span.sequence][layer][held][:, columns])
            values.append(self._values[span.sequence][layer][held][:, columns])
        return keys, values

    def _left_caches(self, action: PassAction, first: int) -> dict[int, Any]:
        """By layer of the pass, the K and V that earlier chunks of the same sequences have left."""
        sequences = tuple(span.sequence for span in action.own)
        layers = range(self._layers_of(action))
        found = {layer: self.appended.get((action.array, first + layer)) for layer in layers}
        return {layer: entry[1] for layer, entry in found.items() if entry is not None and entry[0] == sequences}

    def _keep(self, action: PassAction, first: int, done: PassResults) -> None:
        held = self.held.setdefault((action.array, action.part), {})
        held.update(done.pieces)
        sequences = tuple(span.sequence for span in action.own)
        for layer, pieces in done.caches.items():
            self.appended[action.array, first + layer] = sequences, pieces

    def _kept(self, action: PassAction, name: str, geometry: Geometry, first: int) -> Pieces:
        held = self.held.setdefault((action.array, action.part), {})
        if name != CACHE:
            return held[name]
        spans = self._shared(action)
        columns = kv_columns(self.script.model, action.share)
        cached = (
            [self._keys[span.sequence][first][:, columns] for span in spans],
            [self._values[span.sequence][first][:, columns] for span in spans],
        )
        order = [span.sequence for span in action.own]
        own = {at: order.index(span.sequence) for at, span in enumerate(spans) if span.sequence in order}
        return cache_by_token(geometry, cached, own, held.pop(name, None))

    def _arrival(self, key: _Key, name: str, rows: Sequence[Row]) -> Array:
        """The rows that a pass needs: from other arrays, or left at the array's own root."""
        there = self.arrived.setdefault(key, {}).pop(name, {})
        own = self.left.get(key, {}).pop(name, None)
        if own is not None:
            there = {**own.by_row(), **there}
        missing = [row for row in rows if row not in there]
        if missing:
            raise PlacementError(f"array {key[0]} needs row {missing[0]} of {name}, which nobody sends")
        return np.stack([there[row] for row in rows])

    def _look(self, action: PassAction, rows: Sequence[Row], done: PassResults) -> None:
        """Keeps of a pass what the results of the step are made of."""
        wholes = done.wholes
        if not self.script.model.has_kv_cache and self._ends_layers(action):
            self.hidden.update(zip(rows, wholes["stream"], strict=True))
        if "pooled" in wholes:
            self.pooled.update(zip(dict.fromkeys(sequence for sequence, _ in rows), wholes["pooled"], strict=True))
        result = result_of(self.script.model)
        if result == STREAM or result not in wholes:
            return
        part = self.script.parts[action.pipeline][action.part]
        wanted = set(part.selected(every=len(wholes[result]) == len(rows), first=False))
        selected = [row for row in rows if row in wanted] if len(wholes[result]) < len(rows) else list(rows)
        if not self.script.model.has_lm_head:
            self.hidden.update(zip(selected, wholes[result], strict=True))
            return
        offset = action.vocabulary.part(self.script.model.vocab_size).start
        best = wholes["best"].copy()
        best["index"] += offset
        for row, logits, choice in zip(selected, wholes["logits"], best, strict=True):
            self.logits.setdefault(row, {})[offset] = logits
            self.best[row] = choice
        if action.vocabulary.of == 1:
            self.chosen.update((action.array, row) for row in selected)
        self.left.setdefault((action.array, action.part), {})["best"] = _Rows(tuple(selected), best)

    def _ends_layers(self, action: PassAction) -> bool:
        """Whether the stream that leaves the last layer is written in this pass."""
        layers = self._layers_of(action)
        is_last = layers > 0 and action.first_layer + action.run.layer + layers == self.script.model.num_layers
        return is_last and action.run.does.sends in ("", "stream")

    # ----------------------------------------------------------------------------------------------------- exchanges
    def _meet(self, action: MeetingAction) -> None:
        match action.kind:
            case Meeting.SUM:
                self._sum(action)
            case Meeting.QUERIES:
                self._gather(action)
            case Meeting.ATTENTION:
                self._merge(action)
            case _ if action.kind == CHOICES:
                self._choose(action)
            case _:
                self._move(action)

    def _sum(self, action: MeetingAction) -> None:
        terms = [self._leave(action, rank, action.rows[0]) for rank in action.members]
        total = combine_tree(terms, 2, combiner("sum", self.script.model.head_dim))
        self._count(action, "reduce", total.size, partial=True)
        self._count(action, "broadcast", total.size)
        for rank in action.members:
            self._arrive(rank, action, zip(action.rows[0], total, strict=True))

    def _gather(self, action: MeetingAction) -> None:
        every: dict[Row, Array] = {}
        for rank, rows in zip(action.members, action.rows, strict=True):
            if rows:
                part = self._leave(action, rank, rows)
                self._count(action, "all-gather", part.size)
                every.update(zip(rows, part, strict=True))
        for rank in action.members:
            self._arrive(rank, action, every.items())

    def _merge(self, action: MeetingAction) -> None:
        every = sorted(row for rows in action.rows for row in rows)
        partials = [self._leave(action, rank, every) for rank in action.members]
        merged = combine_tree(partials, 2, combiner("softmax", self.script.model.head_dim))
        if len(action.members) > 1:
            self._count_parts(action, "reduce", [len(rows) * action.row_size for rows in action.rows])
        of_row = dict(zip(every, merged, strict=True))
        for rank, rows in zip(action.members, action.rows, strict=True):
            self._arrive(rank, action, ((row, of_row[row]) for row in rows))

    def _choose(self, action: MeetingAction) -> None:
        candidates = [self._leave(action, rank, action.rows[0]) for rank in action.members]
        chosen = combine_tree(candidates, 2, combiner("max", self.script.model.head_dim))
        self._counter(action.members[0]).count_bytes("reduce", ceil_div(chosen.size * CANDIDATE_BITS, 8))
        self.best.update(zip(action.rows[0], chosen, strict=True))
        self.chosen.update((action.members[0], row) for row in action.rows[0])

    def _move(self, action: MeetingAction) -> None:
        left = {rank: self.left.get((rank, action.part), {}).get(action.tensor) for rank in action.members}
        for move in action.moves:
            if action.kind == TOKENS:
                self._tokens(move)
                continue
            array = left[move.source]
            rows = {} if array is None else array.by_row()
            if not set(move.rows) <= set(rows):
                raise PlacementError(f"array {move.source} does not have what it sends of {action.tensor}")
            moved = [(row, rows[row]) for row in move.rows]
            self._count(action, "unicast", sum(piece.size for _, piece in moved))
            self._arrive(move.target, action, moved)

    def _tokens(self, move: Move) -> None:
        """Moves the chosen tokens of sequences whose next rows are looked up elsewhere."""
        for sequence, position in move.rows:
            if (move.source, (sequence, position - 1)) not in self.chosen:
                raise PlacementError(f"the next token of sequence {sequence} is not chosen where it is sent from")
            self.chosen.add((move.target, (sequence, position - 1)))
        self._counter(move.source).count_bytes("unicast", ceil_div(len(move.rows) * TOKEN_BITS, 8))

    def _leave(self, action: MeetingAction, rank: int, rows: Iterable[Row]) -> Array:
        left = self.left.get((rank, action.part), {}).pop(action.tensor, None)
        if left is None or sorted(left.rows) != sorted(rows):
            raise PlacementError(f"array {rank} does not have the rows of {action.tensor} that are exchanged")
        return left.values

    def _arrive(self, rank: int, action: MeetingAction, rows: Iterable[tuple[Row, Array]]) -> None:
        there = self.arrived.setdefault((rank, action.part), {})
        there.setdefault(action.tensor, {}).update(rows)

    def _count(self, action: MeetingAction, tag: str, elements: int, *, partial: bool = False) -> None:
        dtypes = self.script.system.arrays[action.members[0]].dtypes
        if len(action.members) > 1:
            bits = dtypes.partial.bits if partial else dtypes.activation.bits
            self._counter(action.members[0]).count_bytes(tag, ceil_div(elements * bits, 8))

    def _count_parts(self, action: MeetingAction, tag: str, sizes: Sequence[int]) -> None:
        bits = self.script.system.arrays[action.members[0]].dtypes.partial.bits
        self._counter(action.members[0]).count_bytes(tag, sum(ceil_div(size * bits, 8) for size in sizes))

    # ------------------------------------------------------------------------------------------------------- results
    def result(self) -> Execution:
        """The execution of all arrays together."""
        model, batch = self.script.model, self.script.step.batch_size
        traffic = total_traffic((counter.by_tag, 1) for counter in self.counters.values())
        if not model.has_lm_head:
            output = [np.stack([self.hidden[row] for row in self._of(self.hidden, at)]) for at in range(batch)]
            pooled = np.stack([self.pooled[at] for at in range(batch)]) if self.pooled else None
            return Execution(padded(output, np.nan), tuple(len(part) for part in output), None, pooled, traffic)
        rows = [self._of(self.logits, at) for at in range(batch)]
        output = [np.stack([self._whole_logits(row) for row in own]) for own in rows]
        best = padded([np.array([self.best[row]["index"][0] for row in own], dtype=np.int64) for own in rows], -1)
        return Execution(padded(output, np.nan), tuple(len(part) for part in output), best, None, traffic)

    def _of(self, of_rows: Mapping[Row, Any], sequence: int) -> list[Row]:
        return sorted(row for row in of_rows if row[0] == sequence)

    def _whole_logits(self, row: Row) -> Array:
        parts = self.logits[row]
        return np.concatenate([parts[offset] for offset in sorted(parts)])

    def _weights(self, share: OperatorShare, vocabulary: OperatorShare) -> ModelWeights:
        key = (share, vocabulary)
        if key not in self._shares:
            self._shares[key] = shared_weights(self.weights, self.script.model, share, vocabulary)
        return self._shares[key]

    def _geometry(self, layouts: Layouts) -> Geometry:
        if id(layouts) not in self._geometries:
            self._geometries[id(layouts)] = Geometry(layouts)
        return self._geometries[id(layouts)]

    def _counter(self, rank: int) -> TrafficCounter:
        if rank not in self.counters:
            self.counters[rank] = TrafficCounter(self.script.system.arrays[rank].dtypes)
        return self.counters[rank]


# ---- The proof of a plan: which small model and which steps are run on a system, and what came out of them all.


def prove_system(
    model: ModelConfig,
    system: SystemConfig,
    plan: ParallelPlan,
    workflow: Workflow,
    *,
    weights: Source | None,
    seed: int,
) -> Proof:
    """Executes every proof step under the plan and compares it with the reference.

    Args:
        weights: of `model`; None: a scaled-down random model of its family is taken instead.

    Raises:
        InputError: the plan does not fit the system or the model, or the weights do not fit the model.
    """
    deployment = _deployment(model, system, plan, workflow)
    if weights is None:
        model = small_model(model, system, plan, workflow, deployment)
        weights = random_weights(model, seed)
    read = read_weights(model, weights)
    verdicts, shortage = dict[str, Verdict](), None
    shares = shares_of_batch(deployment, workflow.groups)
    for step in proof_steps(model, shares, least=shares):
        run = run_system(model, system, step, plan, workflow, DEFAULT_ENGINE, allow_overflow=True)
        verdicts[describe_step(step)] = _verdict(run, model, step, read, seed)
        shortage = shortage or system_report(run).shortage
    used = [system.arrays[rank] for rank in deployment.used]
    where = f"{system.name} with {plan.name} on {len(used)} array{'s' if len(used) > 1 else ''}"
    return Proof(model, where, sum(array.num_pes for array in used), workflow.name, verdicts, shortage)


def _deployment(model: ModelConfig, system: SystemConfig, plan: ParallelPlan, workflow: Workflow) -> Deployment:
    """The deployment of a step with a sequence for every share of the batch, while the plan's steps are not known."""
    shares = len(plan.pipelines) or plan.dp
    return prepared(model, system, Prefill(shares, prompt_len=1), plan, workflow)[1]


def _verdict(run: SystemRun, model: ModelConfig, step: Step, weights: ModelWeights, seed: int) -> Verdict:
    shape = attention_shape(model, step)
    ids = read_tokens(random_tokens(model, step, seed), model, shape)
    types = read_token_types(None, model, shape)
    try:
        done = execute_script(run.timed.script, weights, ids, token_types=types)
    except PlacementError as error:
        return Verdict(float("nan"), TOLERANCE, False, None, None, fault=str(error))
    timed = {tag: use for tag, use in system_report(run).traffic.items() if use.messages}
    return verdict_of(done, run_reference(model, weights, ids, types), traffic=timed)


def shares_of_batch(deployment: Deployment, num_groups: int) -> int:
    """Fewest sequences that a step needs: one for each group of PEs in every array and part of it."""
    lines = deployment.pipelines
    inner = max(degrees.dp for line in lines for stage in line.stages for degrees in stage.degrees)
    parts = max(line.microbatches for line in lines) if num_groups > 1 else 1
    return len(lines) * inner * num_groups * parts


def small_model(
    model: ModelConfig, system: SystemConfig, plan: ParallelPlan, workflow: Workflow, deployment: Deployment
) -> ModelConfig:
    """A small model of the family whose heads, FFN and layers the plan fits, with uneven shares where it can have them.

    It keeps the number of layers where the plan or the workflow names one.
    """
    stages = [stage for line in deployment.pipelines for stage in line.stages]
    shares = sorted({degrees.tp for stage in stages for degrees in (*stage.degrees, *_heads_of(deployment))})
    most_pes = max(system.arrays[rank].num_pes for rank in deployment.used)
    longest = max(len(line.stages) for line in deployment.pipelines)
    layers = model.num_layers if _names_layers(plan, workflow) else min(model.num_layers, max(3, longest + 1))
    small = scaled_down(model, most_pes, num_layers=layers)
    kv_heads, per_kv = _heads(model, small, shares)
    head_dim, ratio = small.head_dim, model.q_size != model.hidden_size
    most = shares[-1]
    return replace(
        small,
        num_kv_heads=kv_heads,
        num_heads=kv_heads * per_kv,
        hidden_size=(kv_heads * per_kv + ratio) * head_dim,
        ffn_size=max(small.ffn_size, most * 2 + 1),
        vocab_size=max(small.vocab_size, min(2 * most + 3, model.vocab_size)),
    )


def _heads_of(deployment: Deployment) -> tuple[Degrees, ...]:
    return () if deployment.head is None else (deployment.head,)


def _names_layers(plan: ParallelPlan, workflow: Workflow) -> bool:
    """Whether a plan or a workflow was written for a number of layers."""
    named = any(stage.num_layers for line in plan.pipelines for stage in line.stages)
    return bool(named or plan.num_layers or plan.layers or isinstance(plan.partition, tuple) or workflow.num_layers)


def _heads(model: ModelConfig, small: ModelConfig, shares: Iterable[int]) -> tuple[int, int]:
    """KV heads and query heads to each: the fewest that every number of shares fits, uneven ones first.

    One kv head stays one, and one query head to each stays one, as in a model that is scaled down for one array.
    """
    ways = [of for of in shares if of > 1]
    fitting: list[tuple[bool, int, int]] = []
    for kv_heads in range(min(2, model.num_kv_heads), model.num_kv_heads + 1):
        for per_kv in range(min(2, model.heads_per_kv_head), model.heads_per_kv_head + 1):
            heads = replace(small, num_kv_heads=kv_heads, num_heads=kv_heads * per_kv)
            if all(_fits(heads, of) for of in ways):
                enough = kv_heads >= small.num_kv_heads and per_kv >= small.heads_per_kv_head
                fitting.append((not enough, kv_heads, per_kv))
    least = min(fitting, key=lambda each: (each[1] * each[2], each))
    most = 2 * max(least[1] * least[2], small.num_heads)
    uneven = [each for each in fitting if _is_uneven(each[1], each[2], ways) and each[1] * each[2] <= most]
    _, kv_heads, per_kv = min(uneven or fitting, key=lambda each: (each[0], each[1] * each[2], each))
    return kv_heads, per_kv


def _fits(heads: ModelConfig, of: int) -> bool:
    try:
        head_share(heads, OperatorShare(0, of))
    except InputError:
        return False
    return True


def _is_uneven(kv_heads: int, per_kv: int, ways: Iterable[int]) -> bool:
    return any(kv_heads % of if of <= kv_heads else per_kv % (of // kv_heads) for of in ways)
