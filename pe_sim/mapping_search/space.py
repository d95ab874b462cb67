"""What is chosen: the parts of a layer, the fields of its plan that each part asks for, and what each may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from pe_sim.graph.graph import STREAM, OperatorGraph
from pe_sim.graph.operators import AttentionOperator, Elementwise, Linear, Norm, Operator
from pe_sim.mapping.distributions import DISTRIBUTIONS
from pe_sim.mapping.groups import GRID, grid_ways
from pe_sim.mapping.workflow import LayerPlan

Choice = tuple[tuple[str, str], ...]  # of one part: fields of a LayerPlan and their values

MATRIX = ("row", "col", "replicate", "batch")
ATTENTION = ("head", "token", "replicate", "batch")
NORM = ("replicate", "shard", "root", "batch")  # what `follow` gives a norm or an activation is one of these
ADD = ("follow", "replicate", "shard", "root", "batch")  # only `follow` leaves partial sums as they are
TARGET = ("follow", "replicate", "shard", "batch")
LM_HEAD = MATRIX
NORMS = ("attention_norm", "ffn_norm")
GATED = ("gate", "up")
_MIXED = 3  # grids at most where gate and up may be cut unlike each other; with more, all pairs are too many
GRIDDED = (*GATED, "down")
_GRID = DISTRIBUTIONS[GRID]
_ANYTHING = {"q": "row", "k": "row", "v": "row", "attention": "head", "o": "row", "gate": "row", "up": "row"}
NEUTRAL = LayerPlan(**_ANYTHING, down="row")  # fields that a family does not have may be anything


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a layer between two places where few tensors live.

    Args:
        index: of the part in its layer.
        operators: in program order; none in the last part, which brings the stream to its target.
        options: by field of the plan, what it may be.
        needs: fields chosen before that the part's placement depends on.
        before, after: tensors that live before and after it.
        touched: of those before, the ones it reads.
        mixes: whether gate and up may be cut unlike each other, one of them both ways.
    """

    index: int
    operators: tuple[Operator, ...]
    options: tuple[tuple[str, tuple[str, ...]], ...]
    needs: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    touched: tuple[str, ...]
    mixes: bool = True

    @property
    def is_target(self) -> bool:
        """Whether it is the last part, which brings the stream to its target."""
        return not self.operators


def parts_of(graph: OperatorGraph, grids: tuple[str, ...], *, batched: bool, lone: bool) -> tuple[Part, ...]:
    """The parts of a layer.

    Args:
        grids: distributions that cut both dims of an FFN's matrices, where the PEs stand so.
        batched: whether sequences can be spread over PEs.
        lone: one PE a group, where all distributions are the same thing.
    """
    groups = list(_grouped(graph.layer))
    alive = [_alive(graph.layer, sum(len(group) for group in groups[:count])) for count in range(len(groups) + 1)]
    parts = []
    for index, group in enumerate(groups):
        options = tuple((name, _narrowed(values, batched, lone)) for name, values in _options(group, grids))
        needs = ("attention",) if any(isinstance(op, Linear) and op.name == "o" for op in group) else ()
        read = {name for operator in group for name in operator.inputs}
        touched = tuple(name for name in alive[index] if name in read)
        mixes = len(grids) <= _MIXED or not {name for name, _ in options}.issuperset(GATED)
        parts.append(Part(index, tuple(group), options, needs, alive[index], alive[index + 1], touched, mixes))
    target = (("stream", _narrowed(TARGET, batched, lone)),)
    parts.append(Part(len(groups), (), target, (), (STREAM,), (STREAM,), (STREAM,)))
    return tuple(parts)


def choices(part: Part, allowed: Mapping[str, Sequence[str]]) -> Iterator[Choice]:
    """All choices of a part; `allowed` narrows fields, or gives one a value that is none of its options."""
    names = [name for name, _ in part.options]
    values = [
        [value for value in options if value in allowed.get(name, options)] or allowed[name]
        for name, options in part.options
    ]
    several = {name for name, of_field in zip(names, values, strict=True) if len(of_field) > 1}
    for combination in product(*values):
        choice = tuple(zip(names, combination, strict=True))
        if part.mixes or not (several.issuperset(GATED) and mixes_grids(dict(choice))):
            yield choice


def mixes_grids(choice: Mapping[str, str]) -> bool:
    """Whether gate and up are cut unlike each other, one of them both ways.

    What such a grid gives are terms of the whole tensor, as `col` gives them, and not of its rows' slices.
    """
    kinds = {choice.get(name) for name in GATED}
    return len(kinds) > 1 and any(grid_ways(kind) is not None for kind in kinds if kind)


def plan_of(choice: Mapping[str, str]) -> LayerPlan:
    """The plan of a layer with these fields; the others do not matter."""
    filled = {**NEUTRAL.to_dict(), **choice}
    if "gate" not in choice and "up" in choice:
        filled["gate"] = choice["up"]
    return LayerPlan(**filled)


def _grouped(operators: Sequence[Operator]) -> Iterator[list[Operator]]:
    """The operators part by part: norms and adds alone, matrices of a bundle with what attends or activates behind."""
    group: list[Operator] = []
    for operator in operators:
        if group and not _belongs(operator, group):
            yield group
            group = []
        group.append(operator)
    yield group


def _belongs(operator: Operator, group: Sequence[Operator]) -> bool:
    first = group[0]
    if not isinstance(first, Linear):
        return False
    if isinstance(operator, Linear):
        return operator.bundle == first.bundle and isinstance(group[-1], Linear)
    if isinstance(operator, AttentionOperator):
        return True
    return isinstance(operator, Elementwise) and operator.function != "add"


def matrix_options(operator: Linear, grids: tuple[str, ...]) -> tuple[str, ...]:
    """The distributions of a matrix; those of an FFN may be cut both ways."""
    return MATRIX + grids if _GRID.applies_to(operator) else MATRIX


def _options(group: Sequence[Operator], grids: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for operator in group:
        if isinstance(operator, Linear):
            yield operator.name, matrix_options(operator, grids)
        elif isinstance(operator, Norm):
            yield operator.name, NORM
        elif isinstance(operator, Elementwise):
            is_add = operator.function == "add"
            yield (operator.name, ADD) if is_add else ("activation", NORM)
    if any(isinstance(operator, AttentionOperator) for operator in group):
        yield "attention", ATTENTION


def _narrowed(values: tuple[str, ...], batched: bool, lone: bool) -> tuple[str, ...]:
    if lone:
        return tuple(value for value in values if value in ("follow", "root", "replicate"))
    return values if batched else tuple(value for value in values if value != "batch")


def _alive(operators: Sequence[Operator], done: int) -> tuple[str, ...]:
    """The tensors that live behind the first `done` operators of a layer, the stream first."""
    written = {STREAM: -1}
    for index, operator in enumerate(operators[:done]):
        written |= {tensor.name: index for tensor in operator.outputs}
    read = {name for operator in operators[done:] for name in operator.inputs}
    if done == len(operators):
        read = {STREAM}
    elif done and operators[done - 1].outputs[0].name == STREAM:
        raise ValueError("the stream is written before the layer's end")
    return tuple(name for name in written if name in read)
