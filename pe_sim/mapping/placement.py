"""Where a tensor is: the four placements of the machine model, section 7, and the joint in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = str | int  # which PEs act together: "group", "head", or so many neighbouring PEs of a group
Axis = Literal["", "x", "y", "xy", "yx"]


@dataclass(frozen=True, slots=True)
class Replicate:
    """Every PE of a group holds the whole tensor."""

    def __str__(self) -> str:
        return "Replicate"


@dataclass(frozen=True, slots=True)
class Shard:
    """Each PE holds a slice along `dim`: hidden, query, kv, ffn, vocab, head, token or batch.

    The PEs of a group can stand in a grid, `grid` neighbours in a row (x) and so many rows (y). Then `axis` says which
    slice a PE holds: the one of its place in the row (x), that of its row (y), or of one of these only its own part
    (xy: part y of slice x, yx: part x of slice y). Without a grid (0) every PE has its own.
    """

    dim: str
    grid: int = 0
    axis: Axis = ""

    def __str__(self) -> str:
        if not self.grid:
            return f"Shard({self.dim})"
        return f"Shard({self.dim}) by {self.axis} of a grid of {self.grid} in a row"


@dataclass(frozen=True, slots=True)
class Partial:
    """Each PE holds a term; combining all terms of a scope with `op` (sum, max, softmax) gives the tensor.

    `scope` is `group` (all PEs of a group), `head` (the PEs that share one query head, each group of them
    holding its own head's slice), or how many neighbours: each row of a grid, holding its row's slice.
    `held` is the slice of a grid that a PE has a term of; None: it has one of all that the scope holds.
    """

    op: str
    scope: Scope = "group"
    held: Shard | None = None

    def __str__(self) -> str:
        if self.scope == "group":
            return f"Partial({self.op})" if self.held is None else f"Partial({self.op}) of {self.held}"
        return f"Partial({self.op}) per {self.scope if self.scope == 'head' else f'{self.scope} PEs'}"

    def own_part(self, dim: str) -> Shard:
        """The slice of what a PE has a term of that is its alone; all PEs' slices together are the whole tensor."""
        if self.held is None:
            return Shard(dim)
        return Shard(dim, self.held.grid, "xy" if self.held.axis == "x" else "yx")


@dataclass(frozen=True, slots=True)
class Root:
    """The root holds the tensor."""

    def __str__(self) -> str:
        return "Root"


@dataclass(frozen=True, slots=True)
class Joint:
    """A reduced tensor on its way back: it sits at the joints above each scope's PEs, never in a workflow."""

    scope: Scope

    def __str__(self) -> str:
        return f"joint of each {self.scope if isinstance(self.scope, str) else f'{self.scope} PEs'}"


Placement = Replicate | Shard | Partial | Root | Joint
