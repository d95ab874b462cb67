"""Partial mappings: what they chose, where everything is, and when it is there at the earliest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pe_sim.engine.fast.recurrences import NEVER
from pe_sim.mapping_search.fragments import Held
from pe_sim.mapping_search.lower_bound import Among
from pe_sim.mapping_search.space import Choice
from pe_sim.units import IntArray

Where = tuple[tuple[str, Held], ...]


@dataclass(frozen=True, eq=False, slots=True)
class Moment:
    """One step's state after a partial mapping; arrays are (PEs + 1,) or (hubs + 1,), see `lower_bound`.

    Args:
        where: the tensors that live, and where.
        somewhere: the PEs of which the one at the end of the arrays is one.
        free: when each PE is free.
        ready: by tensor, when it is there.
        end: the last cycle of what is not followed any further.
    """

    where: Where
    somewhere: Among
    free: IntArray
    ready: tuple[IntArray, ...]
    end: int = 0

    def shifted(self, cycles: int) -> Moment:
        """The same state, that many cycles later."""
        ready = tuple(np.where(values > NEVER // 2, values + cycles, NEVER) for values in self.ready)
        return Moment(self.where, self.somewhere, np.maximum(self.free + cycles, NEVER), ready, self.end + cycles)

    @property
    def origin(self) -> int:
        """The first cycle at which anything that lives is there."""
        return min(int(values[values > NEVER // 2].min(initial=1 << 60)) for values in self.ready)


@dataclass(frozen=True, eq=False, slots=True)
class Label:
    """A partial mapping.

    Args:
        moments: one a step.
        energy: dynamic, weighted over the steps: whole units, which add up exactly.
        held_bytes: (steps * PEs,) what memories keep at least under all that it is a bound for; None: not watched.
        own_bytes: the same under its own choices alone.
        choice: what it chose last, `before` what came before that.
        matters: the choices that later placements depend on, beside `where`.
        stands_for_more: whether it also is a bound for mappings that chose something else.
    """

    moments: tuple[Moment, ...]
    energy: int = 0
    held_bytes: IntArray | None = None
    choice: tuple[Choice, ...] = ()
    before: Label | None = None
    matters: Choice = ()
    stands_for_more: bool = False
    own_bytes: IntArray | None = None

    @property
    def place(self) -> tuple[object, ...]:
        """Key of its place: labels with the same one can be followed by the same choices."""
        return (self.matters, *(moment.where for moment in self.moments))

    def cost(self) -> IntArray:
        """The figures that must be no greater in a label for which another one is dropped."""
        parts = [part for moment in self.moments for part in (moment.free, *moment.ready, np.array([moment.end]))]
        if self.held_bytes is not None:
            parts.append(self.held_bytes)
        return np.concatenate(parts)

    def choices(self) -> list[Choice]:
        """Everything that was chosen, in order."""
        chosen: list[tuple[Choice, ...]] = []
        label: Label | None = self
        while label is not None:
            chosen.append(label.choice)
            label = label.before
        return [choice for choices in reversed(chosen) for choice in choices]


def undominated(labels: Iterable[Label], keep: int, width: int, *, by_energy: bool) -> list[Label]:
    """Labels without those that `keep` others in the same place are nowhere worse than.

    Where memory is watched, the leanest label of every place stays: what follows it may need all the room there is.

    Args:
        width: labels of one place at most; where there are more, the last one stands for all the rest.
        by_energy: less energy comes before everything else; else the cycles alone count.
    """
    placed: dict[tuple[object, ...], list[Label]] = {}
    for label in labels:
        placed.setdefault(label.place, []).append(label)
    kept: list[Label] = []
    for group in placed.values():
        chosen = group if len(group) <= keep else _of_one_place(group, keep, by_energy)
        leanest = _leanest(group)
        kept += chosen if len(chosen) <= width else [*chosen[: width - 1], _bound_of_all(chosen[width - 1 :])]
        if leanest is not None and not any(label is leanest for label in kept[-width:]):
            kept.append(leanest)
    return kept


def _leanest(group: Sequence[Label]) -> Label | None:
    held = [math.inf if label.own_bytes is None else int(label.own_bytes.max()) for label in group]
    index = min(range(len(group)), key=held.__getitem__)
    return None if group[index].own_bytes is None else group[index]


def _bound_of_all(labels: Sequence[Label]) -> Label:
    """One label that is nowhere worse than any of these; it has the choices of the first."""
    moments = tuple(
        Moment(
            same[0].where,
            same[0].somewhere,
            np.minimum.reduce([one.free for one in same]),
            tuple(np.minimum.reduce(ready) for ready in zip(*(one.ready for one in same), strict=True)),
            min(one.end for one in same),
        )
        for same in zip(*(label.moments for label in labels), strict=True)
    )
    kept = [label.held_bytes for label in labels if label.held_bytes is not None]
    held = np.minimum.reduce(kept) if kept else None
    energy = min(label.energy for label in labels)
    return replace(labels[0], moments=moments, energy=energy, held_bytes=held, stands_for_more=True)


def _of_one_place(group: list[Label], keep: int, by_energy: bool) -> list[Label]:
    costs = [label.cost() for label in group]
    order = sorted(range(len(group)), key=lambda i: (group[i].energy if by_energy else 0, int(costs[i].sum())))
    chosen: list[Label] = []
    rows = np.empty((len(group), len(costs[0])), dtype=np.int64)
    energy = np.empty(len(group), dtype=object)  # Python's numbers: no energy is rounded
    for index in order:
        count, label = len(chosen), group[index]
        if count >= keep:
            nowhere_worse = (rows[:count] <= costs[index]).all(axis=1)
            if by_energy:
                fewer = (energy[:count] < label.energy).astype(np.bool_)
                if label.held_bytes is not None:  # memory is limited: a leaner label may be the only one that can go on
                    held = len(label.held_bytes)
                    fewer &= (rows[:count, -held:] <= costs[index][-held:]).all(axis=1)
                nowhere_worse = fewer | (nowhere_worse & (energy[:count] <= label.energy).astype(np.bool_))
            if nowhere_worse.sum() >= keep:
                continue
        rows[count], energy[count] = costs[index], label.energy
        chosen.append(label)
    return chosen
