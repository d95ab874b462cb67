"""Places one block: walks its operators in program order and inserts the moves their placements ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pe_sim.config.arrays.array import name_pes
from pe_sim.errors import InputError
from pe_sim.graph.graph import STREAM
from pe_sim.graph.operators import (
    Argmax,
    AttentionOperator,
    Element,
    Elementwise,
    Embedding,
    Linear,
    MergedSoftmax,
    Norm,
    Operator,
    Receive,
    Select,
    Send,
    Softmax,
    Tensor,
    Values,
)
from pe_sim.mapping.distributions import Grid, OperatorPlacement, distribution_for
from pe_sim.mapping.groups import fitting_grids, grid_name, grid_ways
from pe_sim.mapping.layouts import Layouts, softmax_partial
from pe_sim.mapping.placed import Move, MoveKind, Node, PlacedBlock, Value, Work
from pe_sim.mapping.placement import Partial, Placement, Replicate, Root, Scope, Shard
from pe_sim.mapping.transforms import Transforms
from pe_sim.mapping.workflow import ACTIVATIONS, LayerPlan, Workflow

STREAM_TARGETS: dict[str, Placement] = {
    "replicate": Replicate(),
    "shard": Shard("hidden"),
    "batch": Shard("batch"),
}
_FIXED_VECTORS: dict[str, Placement] = {"replicate": Replicate(), "root": Root(), "batch": Shard("batch")}
STATISTICS: dict[str, int] = {"rmsnorm": 1, "layernorm": 2}  # scalars a row that a distributed norm reduces


@dataclass(frozen=True)
class BlockPlan:
    """The distributions and placements that a workflow gives a block's operators.

    Args:
        matrices: distribution of each matrix by the operator's name.
        attention: distribution of attention.
        vectors: placement of norms, adds and the activation by name; those left out follow their inputs.
        stream: replicate, shard, batch or follow, for the stream that leaves the block.
        source: workflow name, for messages.
        stream_weights: matrices come from the root every step.
        local_ends: PEs look up their own sequences' embeddings and keep their own results.
        held: placements of tensors that are received; the others come to the root.
        shares_tokens: other arrays have tokens of the same sequences: softmax partials are merged among them, later.
    """

    matrices: Mapping[str, str]
    attention: str
    vectors: Mapping[str, str]
    stream: str
    source: str
    stream_weights: bool = False
    local_ends: bool = False
    held: Mapping[str, Placement] = field(default_factory=dict)
    shares_tokens: bool = False


@dataclass
class BlockPlacer:
    """Turns the operators of one block into nodes; one instance places one block once."""

    operators: Sequence[Operator]
    plan: BlockPlan
    layouts: Layouts
    transforms: Transforms
    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    bundles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    recent_matrices: list[Value] = field(default_factory=list)
    next_key: int = 0

    def place(self, entering: Sequence[Value]) -> PlacedBlock:
        """The placed block for the values that leave the block before it, the stream first."""
        entries = tuple(self._value(value.tensor, value.placement) for value in entering)
        if entries:
            self.values[STREAM] = entries[0]
            self.recent_matrices = list(entries[1:])
        for operator in self.operators:
            self._place(operator)
        if STREAM in self.values and self.plan.stream in STREAM_TARGETS:
            self._need(self.operators[-1], {STREAM: STREAM_TARGETS[self.plan.stream]})
        leaving = (self.values[STREAM], *self.recent_matrices) if STREAM in self.values else ()
        return PlacedBlock(tuple(self.nodes), entries, leaving, self.layouts)

    def place_part(
        self, entering: Sequence[Value], leaving: Sequence[str], ends: Operator | None = None
    ) -> PlacedBlock:
        """A placed part of a block, between the values that live before it and those named that live after it.

        Args:
            ends: the block's last operator, given with its last part: the stream is brought to its target for it.
        """
        entries = tuple(self._value(value.tensor, value.placement) for value in entering)
        self.values.update({value.tensor.name: value for value in entries})
        for operator in self.operators:
            self._place(operator)
        if ends is not None and self.plan.stream in STREAM_TARGETS:
            self._need(ends, {STREAM: STREAM_TARGETS[self.plan.stream]})
        return PlacedBlock(tuple(self.nodes), entries, tuple(self.values[name] for name in leaving), self.layouts)

    def _place(self, operator: Operator) -> None:
        match operator:
            case Embedding():
                self._place_embedding(operator)
            case Linear() | AttentionOperator():
                self._place_distributed(operator)
            case Norm():
                self._place_norm(operator)
            case Elementwise(function="add"):
                self._place_add(operator)
            case Elementwise():
                self._place_activation(operator)
            case Select():
                self._work(operator, "select", (self.values[operator.inputs[0]].placement,))
            case Argmax():
                self._place_argmax(operator)
            case Receive():
                self._place_receive(operator)
            case Send():
                self._need(operator, {operator.inputs[0]: Root()})
            case MergedSoftmax():
                self._work(operator, "softmax_merge", (Root(),))
            case _:
                raise TypeError(f"no rule places a {type(operator).__name__}")

    def _place_embedding(self, operator: Embedding) -> None:
        place = self._normal(Shard("batch")) if self.plan.local_ends else Root()
        self._work(operator, "embedding", (place,) * len(operator.outputs))

    def _place_receive(self, operator: Receive) -> None:
        name = operator.outputs[0].name
        self._work(operator, "receive", (self.plan.held.get(name, Root()),))
        if operator.to_all:
            self._need(operator, {name: Replicate()})

    def _place_distributed(self, operator: Operator) -> None:
        placement = self._static_placement(operator)
        self._need(operator, dict(zip(operator.inputs, placement.inputs, strict=True)))
        if isinstance(operator, Values) and placement.outputs[0] == Partial("softmax"):
            self._merge_softmax(operator)
        elif isinstance(operator, Linear):
            self._place_linear(operator, placement.outputs)
        else:
            self._work(operator, operator.name, placement.outputs)

    def _place_linear(self, operator: Linear, outputs: tuple[Placement, ...]) -> None:
        inputs = operator.inputs
        if self.plan.stream_weights:
            inputs = (*inputs, self._stream_weights(operator))
        self._work(operator, "matrix", outputs, inputs=inputs)
        if self.plan.stream_weights:
            self.recent_matrices = [*self.recent_matrices[-1:], self.values[operator.outputs[0].name]]
        if operator.bias:
            self._work(operator, "bias", outputs, inputs=(operator.outputs[0].name,))
        self.bundles[operator.outputs[0].name] = tuple(
            other.outputs[0].name
            for other in self.operators
            if isinstance(other, Linear) and other.bundle == operator.bundle and other is not operator
        )

    def _stream_weights(self, operator: Linear) -> str:
        """Adds the root's sending of a matrix, once PEs have room (for two, or one without overlap); gives its name."""
        name = f"{operator.name}_weight"
        tensor = Tensor(name, "weight", operator.in_size * operator.out_size)
        held, target = self._value(tensor, Root()), self._value(tensor, Replicate())
        room_for = self.transforms.matrices_held
        done = self.recent_matrices[-room_for:]
        waited_for = done[0] if len(done) == room_for else self.values.get(STREAM, self.values[operator.inputs[0]])
        self.nodes.append(Move(operator, MoveKind.WEIGHT_STREAM, "group", (held,), (target,), after=(waited_for,)))
        self.values[name] = target
        return name

    def _merge_softmax(self, operator: Values) -> None:
        partial = softmax_partial(operator.outputs[0], self.layouts.shape)
        self._work(operator, "values", (Partial("softmax"),), outputs=(partial,))
        self._need(operator, {partial.name: Root()})
        if not self.plan.shares_tokens:
            self._work(operator, "softmax_merge", (Root(),), inputs=(partial.name,))

    def _place_norm(self, operator: Norm) -> None:
        name = operator.inputs[0]
        self._need(operator, {name: self._norm_placement(operator)})
        placement = self.values[name].placement
        if placement == Shard("hidden"):
            self._place_sharded_norm(operator)
        else:
            self._work(operator, operator.function, (placement,))

    def _norm_placement(self, operator: Norm) -> Placement:
        """Where a norm runs: as the plan says, else on a whole stream as it is, or as the norm's consumers want it."""
        fixed = self.plan.vectors.get(operator.name, "follow")
        if fixed != "follow":
            return Shard("hidden") if fixed == "shard" else _FIXED_VECTORS[fixed]
        current = self.values[operator.inputs[0]].placement
        if isinstance(current, Replicate):
            return current
        wanted = self._wanted_by_consumers(operator.outputs[0].name)
        if not wanted and isinstance(current, Shard):
            return current
        if len(wanted) != 1 or any(isinstance(place, Shard) and place.grid for place in wanted):
            return Replicate()  # from a whole row every PE takes the slice that its grid gives it, at no cost
        return wanted.pop()

    def _place_sharded_norm(self, operator: Norm) -> None:
        size = STATISTICS[operator.function]
        rows = operator.outputs[0].rows
        statistic = Tensor(f"{operator.name}_statistic", "scalar", size, rows, Element.STATISTIC)
        self._work(operator, "sum_of_squares", (Partial("sum"),), outputs=(statistic,))
        self._need(operator, {statistic.name: Replicate()})
        self._work(operator, "scale", (Shard("hidden"),), inputs=(operator.inputs[0], statistic.name))

    def _place_add(self, operator: Elementwise) -> None:
        places = [_of_the_whole(self.values[name].placement) for name in operator.inputs]
        self._place_elementwise(operator, _meeting_place(places))

    def _place_activation(self, operator: Elementwise) -> None:
        places = [self.values[name].placement for name in operator.inputs]
        self._place_elementwise(operator, _activation_place(places))

    def _place_elementwise(self, operator: Elementwise, target: Placement) -> None:
        fixed = self.plan.vectors.get(operator.name, "follow")
        on_grid = isinstance(target, Shard) and target.grid > 0  # then its slices are what `shard` means
        if fixed != "follow" and not (fixed == "shard" and on_grid):
            dim = operator.outputs[0].dim
            target = self._normal(Shard(dim) if fixed == "shard" else _FIXED_VECTORS[fixed])
        self._need(operator, dict.fromkeys(operator.inputs, target))
        self._work(operator, operator.function, (target,))

    def _place_argmax(self, operator: Argmax) -> None:
        name = operator.inputs[0]
        place = self.values[name].placement
        if isinstance(place, Partial):
            self._need(operator, {name: Root()})
            self._work(operator, "argmax", (Root(),))
            return
        if place == Shard("batch") or (self.plan.local_ends and isinstance(place, Replicate)):
            self._work(operator, "argmax", (place,))
            if not self.plan.local_ends:
                self._need(operator, {operator.outputs[0].name: Root()})
            return
        self._work(operator, "argmax", (Partial("max"),))
        self._need(operator, {operator.outputs[0].name: Root()})
        self._work(operator, "argmax", (Root(),), inputs=(operator.outputs[0].name,))

    def _need(self, operator: Operator, wanted: Mapping[str, Placement]) -> None:
        """Moves tensors to where `operator` needs them; bundle mates with the same transform travel along."""
        wanted = {name: self._normal(place) for name, place in wanted.items()}
        for name in tuple(wanted):
            for mate in self.bundles.get(name, ()):
                if mate not in wanted:
                    places = self._wanted_by_consumers(mate)
                    if len(places) == 1:
                        wanted[mate] = self._normal(places.pop())
        together: dict[tuple[Placement, Placement], list[str]] = {}
        for name, target in wanted.items():
            source = self.values[name].placement
            if source != target:
                together.setdefault((source, target), []).append(name)
        for (source, target), names in together.items():
            self._move(operator, names, source, target)

    def _move(self, operator: Operator, names: Sequence[str], source: Placement, target: Placement) -> None:
        scope: Scope = "group"
        for step in self.transforms.steps([self.values[name].tensor for name in names], source, target):
            scope = step.source.scope if isinstance(step.source, Partial) else scope
            inputs = tuple(self.values[name] for name in names)
            outputs = tuple(self._value(value.tensor, step.target) for value in inputs)
            self.nodes.append(Move(operator, step.kind, scope, inputs, outputs, step.partial_dtype, step.combine))
            self.values.update(zip(names, outputs, strict=True))

    def _work(
        self,
        operator: Operator,
        function: str,
        placements: tuple[Placement, ...],
        *,
        inputs: tuple[str, ...] | None = None,
        outputs: tuple[Tensor, ...] | None = None,
    ) -> None:
        sources = tuple(self.values[name] for name in (operator.inputs if inputs is None else inputs))
        results = tuple(
            self._value(tensor, placement)
            for tensor, placement in zip(outputs or operator.outputs, placements, strict=True)
        )
        self.nodes.append(Work(operator, function, self._distribution_name(operator), sources, results))
        self.values.update({value.tensor.name: value for value in results})

    def _wanted_by_consumers(self, tensor: str) -> set[Placement]:
        """What the distributed consumers of a tensor need; empty where its consumers follow their inputs."""
        wanted: set[Placement] = set()
        for operator in self.operators:
            if tensor in operator.inputs and isinstance(operator, Linear | AttentionOperator):
                placement = self._static_placement(operator)
                wanted.add(placement.inputs[operator.inputs.index(tensor)])
        return wanted

    def _static_placement(self, operator: Operator) -> OperatorPlacement:
        name = self._distribution_name(operator)
        ways = grid_ways(name)
        if ways is not None and not self.transforms.fits_grid(ways):
            raise self._misfit(operator, ways)
        if self.transforms.is_lone and not self._leaves_partial(operator):
            name = "replicate"  # with one PE a group Partial, Shard and Replicate are the same thing
        path = "attention" if isinstance(operator, AttentionOperator) else operator.name
        distribution = distribution_for(operator, name, self.plan.source, path)
        if isinstance(distribution, Grid) and distribution.ways > 1 and self.transforms.is_one_row(distribution.ways):
            return distribution.place_on_one_row(operator)
        return distribution.place(operator, self.plan.attention, self.transforms.head_group_size)

    def _leaves_partial(self, operator: Operator) -> bool:
        """Whether its softmax is divided later: where arrays share tokens, a lone PE has some of them, too."""
        return self.plan.shares_tokens and isinstance(operator, Softmax | Values)

    def _misfit(self, operator: Operator, ways: int) -> InputError:
        groups = self.transforms.layouts.groups
        problem = f"{groups.size} PEs do not stand in rows of {ways} that each have a joint of their own"
        if groups.has_dead:
            problem = f"a grid's rows need all their PEs, and some are in dead_pes: {name_pes(groups.dead_pes)}"
        return InputError(
            problem,
            source=self.plan.source,
            path=operator.name,
            given=grid_name(ways),
            expected="one of " + ", ".join(map(grid_name, fitting_grids(self.transforms.array, groups))),
        )

    def _distribution_name(self, operator: Operator) -> str:
        if isinstance(operator, AttentionOperator):
            return self.plan.attention
        return self.plan.matrices.get(operator.name, "")

    def _normal(self, placement: Placement) -> Placement:
        """The placement, or Replicate with one PE a group, where Partial, Shard and Replicate are the same thing."""
        if self.transforms.is_lone and not isinstance(placement, Root):
            return Replicate()
        return placement

    def _value(self, tensor: Tensor, placement: Placement) -> Value:
        self.next_key += 1
        return Value(self.next_key - 1, tensor, placement)


def _of_the_whole(place: Placement) -> Placement:
    """The placement, with terms of slices as terms of the whole tensor, which they are for free."""
    return Partial(place.op) if isinstance(place, Partial) and place.held is not None else place


def _meeting_place(places: Sequence[Placement]) -> Placement:
    """Where a residual add is free: (Partial, anything), (Shard, Replicate), two alike, else Replicate."""
    kinds = set(places)
    if Partial("sum") in kinds and Root() not in kinds:
        return Partial("sum")
    others = kinds - {Replicate()}
    return others.pop() if len(others) == 1 else Replicate()


def _activation_place(places: Sequence[Placement]) -> Placement:
    """Where an activation runs: on the slices it finds or has terms of; at the root if its inputs are partial sums."""
    kinds = set(places)
    slices = {place.held for place in kinds if isinstance(place, Partial) and place.held is not None}
    if len(kinds) == len(slices) == 1:
        return next(place for place in slices)
    kinds = {_of_the_whole(place) for place in kinds}
    if Partial("sum") in kinds:
        return Replicate() if Replicate() in kinds else Root()
    others = kinds - {Replicate()}
    return others.pop() if len(others) == 1 else Replicate()


# ---- From a workflow's plan of a layer to what the placer of a block wants.


def layer_plan(workflow: Workflow, plan: LayerPlan) -> BlockPlan:
    """The plan of a layer's block."""
    matrices = {name: getattr(plan, name) for name in ("q", "k", "v", "o", "gate", "up", "down")}
    vectors = {name: getattr(plan, name) for name in ("attention_norm", "attention_add", "ffn_norm", "ffn_add")}
    vectors |= dict.fromkeys(ACTIVATIONS, plan.activation)
    return BlockPlan(
        matrices,
        plan.attention,
        vectors,
        plan.stream,
        workflow.source or workflow.name,
        stream_weights=workflow.stream_weights,
        local_ends=workflow.local_ends,
    )


def end_plan(workflow: Workflow, neighbour: LayerPlan, *, prologue: bool) -> BlockPlan:
    """The plan of what comes before the first layer or after the last; `neighbour` is that layer's plan."""
    stream = "follow"
    if prologue:
        stream = "batch" if neighbour.stream == "batch" else "replicate"
    return BlockPlan(
        {"lm_head": workflow.lm_head, "pooler": workflow.lm_head},
        neighbour.attention,
        {},
        stream,
        workflow.source or workflow.name,
        stream_weights=workflow.stream_weights,
        local_ends=workflow.local_ends,
    )
