"""A parallel plan: how a model is spread over several arrays, as a plan file says it and before a model is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Partition = Literal["uniform", "uniform_floor", "uniform_ceil", "parameters", "balanced"]
PARTITIONS: Final[tuple[Partition, ...]] = get_args(Partition)


@dataclass(frozen=True, slots=True)
class Degrees:
    """How the arrays of one stage share a layer.

    Array `(d * cp + c) * tp + t` of the stage has share d of the batch, c of the tokens and t of the operators; where
    the operator splits are not of neighbours, it is array `(t * dp + d) * cp + c`.

    Args:
        dp: shares of the batch.
        cp: shares of the tokens: each has the rows and the keys and values of its own positions.
        tp: shares of the operators: heads, FFN columns, vocabulary.
        consecutive: whether the arrays that share an operator are neighbours in the stage.
    """

    dp: int = 1
    cp: int = 1
    tp: int = 1
    consecutive: bool = True

    @property
    def num_arrays(self) -> int:
        """Arrays of a stage that is shared so."""
        return self.dp * self.cp * self.tp

    def __str__(self) -> str:
        return f"dp {self.dp} x tp {self.tp} x cp {self.cp}"


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Consecutive layers on some arrays.

    Args:
        arrays: the ranks that work on it, in the order of `Degrees`.
        first_layer, num_layers: layers first_layer .. first_layer + num_layers - 1.
        degrees: of each of its layers.
    """

    arrays: tuple[int, ...]
    first_layer: int
    num_layers: int
    degrees: tuple[Degrees, ...]


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """Stages that a share of the batch goes through; several pipelines of a plan have nothing to do with each other."""

    stages: tuple[StagePlan, ...]


@dataclass(frozen=True, slots=True)
class ParallelPlan:
    """What a plan file says. It speaks of degrees, or names the arrays of every stage (`pipelines`), not both.

    With degrees, rank `((p * dp + d) * cp + c) * tp + t` is array (c, t) of stage p of pipeline d.

    Args:
        name, source: what people and messages call it: a name, and the file it came from.
        dp, tp, pp, cp: degrees; shares of the batch, operators, stages of layers, shares of the tokens.
        partition: how layers are cut into stages: a method, or pp + 1 bounds (0, ..., number of layers).
        microbatches: parts in which a pipeline's share of the step goes through its stages: sequences in decode,
            chunks of the prompts in prefill; None: as many as there are stages, if there is so much to part.
        layers: degrees of each layer inside its stage, of all arrays of a stage (then dp, tp and cp are 1); empty:
            the same everywhere.
        head: degrees of the LM head in the last stage; None: as the last layer.
        pipelines: stages with their arrays, given one by one; empty: from the degrees.
        overlap: the machine model's overlap level, if the plan sets it.
        matrices: distribution (`row` or `col`) of matrices by operator name (q, k, v, o, gate, up, down), where the
            plan says so.
        split_vocabulary: whether arrays that share operators share the LM head, too.
        unused: ranks that take no part: dead arrays.
        num_layers: layers the plan was made for; None: it fits any number.
        ignored: what it says that inference has no use for, a line each.
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
