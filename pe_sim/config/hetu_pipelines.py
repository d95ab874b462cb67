"""Hetu's members of a union as pipelines: takes each member's pieces, gives the plan's pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pe_sim.config.plan import Degrees, PipelinePlan, StagePlan
from pe_sim.config.plan_values import stage
from pe_sim.errors import InputError


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive layers of one member of a union.

    Args:
        arrays: the member's group: its replicas one after the other, each of tp arrays.
        first_layer, num_layers: layers first_layer .. first_layer + num_layers - 1.
        tp: arrays that share the operators.
    """

    arrays: tuple[int, ...]
    first_layer: int
    num_layers: int
    tp: int

    @property
    def replicas(self) -> int:
        """Copies of the layers in the group."""
        return len(self.arrays) // self.tp

    @property
    def end(self) -> int:
        """The layer after the last."""
        return self.first_layer + self.num_layers


Lane = tuple[Piece, ...]  # the pieces of one replica, from the first layer to the last


def pipelines_of(members: Sequence[Lane], cp_list: Sequence[int] | None, source: str) -> tuple[PipelinePlan, ...]:
    """The pipelines of a union: one for each replica, or for each cp_list entry's replicas, which share the tokens.

    Args:
        members: of each member its pieces, in the order of their layers.
        cp_list: how many replicas in a row share the tokens; None: none do.
        source: what errors call the plan.

    Raises:
        InputError: cp_list is not of all replicas, or replicas that share tokens do not share operators alike.
    """
    if any(piece.replicas != member[0].replicas for member in members for piece in member):
        return _uneven(members, cp_list, source)
    lanes = [lane for member in members for lane in _lanes(member)]
    shares = list(cp_list) if cp_list is not None else [1] * len(lanes)
    if sum(shares) != len(lanes):
        raise InputError(
            f"cp_list is of {sum(shares)} replicas",
            source=source,
            path="cp_list",
            given=shares,
            expected=f"numbers that add up to {len(lanes)}",
        )
    pipelines, at = [], 0
    for cp in shares:
        pipelines.append(_merged(lanes[at : at + cp], at, source))
        at += cp
    return tuple(pipelines)


def _lanes(member: Lane) -> list[Lane]:
    """One lane for each replica in the member's groups."""
    return [
        tuple(
            Piece(piece.arrays[r * piece.tp : (r + 1) * piece.tp], piece.first_layer, piece.num_layers, piece.tp)
            for piece in member
        )
        for r in range(member[0].replicas)
    ]


def _uneven(members: Sequence[Lane], cp_list: Sequence[int] | None, source: str) -> tuple[PipelinePlan, ...]:
    """Stages with different numbers of replicas hand the batch over as a whole: one pipeline a member."""
    if cp_list is not None and any(cp != 1 for cp in cp_list):
        problem, expected = "shares of the tokens beside stages with different numbers of replicas", "1 for each"
        raise InputError(problem, source=source, path="cp_list", given=list(cp_list), expected=expected)
    return tuple(
        PipelinePlan(
            tuple(
                stage(piece.arrays, piece.first_layer, piece.num_layers, Degrees(dp=piece.replicas, tp=piece.tp))
                for piece in member
            )
        )
        for member in members
    )


def _merged(lanes: Sequence[Lane], first_replica: int, source: str) -> PipelinePlan:
    """One pipeline of replicas that share the tokens, cut wherever one of them is."""
    cuts = sorted({edge for lane in lanes for piece in lane for edge in (piece.first_layer, piece.end)})
    stages: list[StagePlan] = []
    for begin, end in pairwise(cuts):
        pieces = [next(piece for piece in lane if piece.first_layer <= begin < piece.end) for lane in lanes]
        for index, piece in enumerate(pieces):
            if piece.tp != pieces[0].tp:
                raise InputError(
                    f"replicas {first_replica} and {first_replica + index} share tokens,"
                    f" and share layer {begin} among {pieces[0].tp} and {piece.tp} arrays",
                    source=source,
                    path="cp_list",
                    given=len(lanes),
                    expected="as many arrays in each, or no shared tokens (1 for each)",
                )
        arrays = tuple(array for piece in pieces for array in piece.arrays)
        stages.append(stage(arrays, begin, end - begin, Degrees(cp=len(lanes), tp=pieces[0].tp)))
    return PipelinePlan(tuple(stages))
