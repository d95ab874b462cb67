"""Where a tensor is: the four placements of the machine model, section 7, and the joint in between."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replicate:
    """Every PE of a group holds the whole tensor."""

    def __str__(self) -> str:
        return "Replicate"


@dataclass(frozen=True, slots=True)
class Shard:
    """Each PE holds a slice along `dim`: hidden, query, kv, ffn, vocab, head, token or batch."""

    dim: str

    def __str__(self) -> str:
        return f"Shard({self.dim})"


@dataclass(frozen=True, slots=True)
class Partial:
    """Each PE holds a term; combining all terms of a scope with `op` (sum, max, softmax) gives the tensor.

    `scope` is `group` (all PEs of a group) or `head` (the PEs that share one query head, each group of them
    holding its own head's slice).
    """

    op: str
    scope: str = "group"

    def __str__(self) -> str:
        return f"Partial({self.op})" if self.scope == "group" else f"Partial({self.op}) per {self.scope}"


@dataclass(frozen=True, slots=True)
class Root:
    """The root holds the tensor."""

    def __str__(self) -> str:
        return "Root"


@dataclass(frozen=True, slots=True)
class Joint:
    """A reduced tensor on its way back: it sits at the joints above each scope's PEs, never in a workflow."""

    scope: str

    def __str__(self) -> str:
        return f"joint of each {self.scope}"


Placement = Replicate | Shard | Partial | Root | Joint
