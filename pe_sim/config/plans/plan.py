"""A parallel plan: how a model is spread over several arrays, as a plan file says it and before a model is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Partition = Literal["uniform", "uniform_floor", "uniform_ceil", "parameters", "balanced"]
PARTITIONS: Final[tuple[Partition, ...]] = get_args(Partition)


@dataclass(frozen=True, slots=True)
class Degrees:
    """How the arrays of one stage share a layer.

    Array `(d * cp + c) * tp + t` of the stage has share d of the batch, c of the tokens and t of the operators; if
    `consecutive` is False, it is array `(t * dp + d) * cp + c`.

    Args:
        dp: shares of the batch.
        cp: shares of the tokens, each with the rows, keys and values of its own positions.
        tp: shares of the operators: heads, FFN columns, vocabulary.
        consecutive: whether the arrays that share an operator are neighbours in the stage.
    """

    dp: int = 1
    cp: int = 1
    tp: int = 1
    consecutive: bool = True

    @property
    def num_arrays(self) -> int:
        """Number of arrays of a stage with these degrees."""
        return self.dp * self.cp * self.tp

    def __str__(self) -> str:
        return f"dp {self.dp} x tp {self.tp} x cp {self.cp}"


@dataclass(frozen=True, slots=True)
class StagePlan:
    """A stage: consecutive layers on some arrays.

    Args:
        arrays: the ranks that work on it, in the order of `Degrees`.
        first_layer, num_layers: layers first_layer .. first_layer + num_layers - 1.
        degrees: the degrees of each of its layers.
    """

    arrays: tuple[int, ...]
    first_layer: int
    num_layers: int
    degrees: tuple[Degrees, ...]


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """A pipeline: the stages that a share of the batch goes through; pipelines of a plan are independent."""

    stages: tuple[StagePlan, ...]


@dataclass(frozen=True, slots=True)
class ParallelPlan:
    """A parallel plan: either degrees, or pipelines that name the arrays of every stage, not both.

    With degrees, rank `((p * dp + d) * cp + c) * tp + t` is array (c, t) of stage p of pipeline d.

    Args:
        name, source: its name for reports, and the file it came from for messages.
        dp, tp, pp, cp: numbers of shares of the batch, of the operators, of stages, and of shares of the tokens.
        partition: how layers are cut into stages: a method, or pp + 1 bounds (0, ..., number of layers).
        microbatches: number of parts in which a pipeline's share of the step goes through its stages (sequences in
            decode, chunks of the prompts in prefill); None: as many as there are stages, or as can be made.
        layers: degrees of each layer, over all arrays of its stage (then dp, tp and cp are 1); empty: the same
            everywhere.
        head: degrees of the LM head in the last stage; None: those of the last layer.
        pipelines: stages with their arrays, given one by one; empty: from the degrees.
        overlap: the machine model's overlap level, if the plan sets it.
        matrices: (operator, `row` or `col`) for those of q, k, v, o, gate, up, down that the plan sets.
        split_vocabulary: whether arrays that share operators share the LM head, too.
        unused: ranks that take no part: dead arrays.
        num_layers: number of layers that the plan was made for; None: any.
        ignored: a line for each entry that inference has no use for.
    """

    name: str = "plan"
    source: str = ""
    dp: int = 1
    tp: int = 1
    pp: int = 1
    cp: int = 1
    partition: Partition | tuple[int, ...] = "uniform"
    microbatches: int | None = None
    layers: tuple[Degrees, ...] = ()
    head: Degrees | None = None
    pipelines: tuple[PipelinePlan, ...] = ()
    overlap: int | None = None
    matrices: tuple[tuple[str, str], ...] = ()
    split_vocabulary: bool = True
    unused: tuple[int, ...] = ()
    num_layers: int | None = None
    ignored: tuple[str, ...] = field(default=(), compare=False)
