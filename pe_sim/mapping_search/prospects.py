"""Choices that cannot pay: once all were run from one entry, others are entered alike, and few are run again.

Nothing in a piece is counted from anywhere but its inputs, and later inputs never give earlier outputs. So if no input
comes more than `late` cycles later than in the first entry and none more than `early` cycles earlier, every output of
every choice is as much later or earlier at most. A choice that was behind another one by more than both together, in
everything that lives on, is behind it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pe_sim.engine.recurrences import NEVER
from pe_sim.mapping_search.isolation import Passage
from pe_sim.mapping_search.labels import Moment
from pe_sim.mapping_search.pieces import Piece
from pe_sim.mapping_search.space import Choice, Part
from pe_sim.units import BoolArray, IntArray

_AHEAD = NEVER // 2  # cycles: nothing to compare, so as far ahead as can be


@dataclass(frozen=True, eq=False, slots=True)
class Tried:
    """A choice that was run from some entry; pieces and passages are one a step.

    Args:
        later: of the choice, what later placements depend on.
        energy: as in `Label`.
    """

    choice: Choice
    later: Choice
    pieces: tuple[Piece, ...]
    passages: tuple[Passage, ...]
    energy: int

    @property
    def place(self) -> tuple[object, ...]:
        """Choices with the same one can be followed by the same."""
        renewed = tuple(passage.renewed for passage in self.passages)
        return (self.later, renewed, *(piece.leaving for piece in self.pieces))


@dataclass(frozen=True, eq=False, slots=True)
class Entry:
    """How a part is entered.

    Args:
        cycles: (inputs,) by step, when PEs are free and values there.
        there: which values are there at all.
    """

    cycles: tuple[IntArray, ...]
    there: bytes

    @classmethod
    def of(cls, moments: Sequence[Moment], part: Part) -> Entry:
        """Of a partial mapping. A PE that was free before any value was there might as well have become free then."""
        cycles, there = [], []
        for moment in moments:
            ready = dict(zip((name for name, _ in moment.where), moment.ready, strict=True))
            values = np.concatenate([ready[name] for name in part.touched])
            is_there = values > NEVER // 2
            first = values[is_there].min(initial=-NEVER)
            cycles.append(np.concatenate([np.maximum(moment.free, first), values[is_there]]))
            there.append(is_there.tobytes())
        return cls(tuple(cycles), b"".join(there))

    def spread_from(self, other: Entry) -> IntArray:
        """(steps,) by how much more some input is later than in the other entry than some other input is."""
        apart = [mine - its for mine, its in zip(self.cycles, other.cycles, strict=True)]
        return np.array([difference.max() - difference.min() for difference in apart])


@dataclass(frozen=True, eq=False, slots=True)
class _Rivals:
    """Choices that leave the same things in the same places.

    Args:
        behind: (steps, choices, choices) how far the first is behind the second at worst; negative: ahead everywhere.
        may_beat: (choices, choices) whether the first beats the second if it is ahead.
        beats_anyway: (choices, choices) the same, whenever it is there.
    """

    choices: tuple[Choice, ...]
    behind: IntArray
    may_beat: BoolArray
    beats_anyway: BoolArray

    def worth(self, spread: IntArray, keep: int) -> list[Choice]:
        """Those that fewer than `keep` others beat."""
        ahead = (self.behind <= -spread[:, None, None]).all(axis=0)
        beats = (ahead & self.may_beat) | self.beats_anyway
        # Of two that beat each other, and so are equal, the first one does.
        beats &= ~beats.T | np.triu(np.ones_like(beats), 1)
        return [choice for choice, rivals in zip(self.choices, beats.sum(axis=0), strict=True) if rivals < keep]


@dataclass(frozen=True, eq=False, slots=True)
class Prospects:
    """What all choices of a part came to from one entry."""

    entry: Entry
    rivals: tuple[_Rivals, ...]

    @classmethod
    def of(cls, entry: Entry, tried: Sequence[Tried], *, by_energy: bool, watched: bool) -> Prospects:
        """Of all that could be placed.

        Args:
            by_energy: less energy comes before everything else.
            watched: whether memory is short, so that no choice beats a leaner one.
        """
        placed: dict[tuple[object, ...], list[Tried]] = {}
        for one in tried:
            placed.setdefault(one.place, []).append(one)
        return cls(entry, tuple(_rivals(group, by_energy=by_energy, watched=watched) for group in placed.values()))

    def worth(self, entry: Entry, keep: int) -> set[Choice]:
        """The choices that are worth a run from another entry."""
        spread = entry.spread_from(self.entry)
        return {choice for rivals in self.rivals for choice in rivals.worth(spread, keep)}


def _rivals(group: Sequence[Tried], *, by_energy: bool, watched: bool) -> _Rivals:
    count = len(group)
    may_beat = ~np.array([[_is_anchored(one) for one in group]] * count)
    anyway = np.zeros((count, count), dtype=bool)
    if watched:
        held = np.array([np.concatenate([piece.held_bytes for piece in one.pieces]) for one in group])
        may_beat &= np.array([(mine <= held).all(axis=1) for mine in held])
    if by_energy:
        energy = [one.energy for one in group]  # too large for fixed-size integers
        anyway = may_beat & np.array([[mine < its for its in energy] for mine in energy])
        may_beat &= np.array([[mine <= its for its in energy] for mine in energy])
    np.fill_diagonal(may_beat, False)
    steps = len(group[0].pieces)
    outcomes = [[_outcome(one.pieces[step], one.passages[step]) for one in group] for step in range(steps)]
    behind = np.array([_behind(of_step) for of_step in outcomes])
    return _Rivals(tuple(one.choice for one in group), behind, may_beat, anyway)


def _behind(outcomes: Sequence[tuple[IntArray, BoolArray]]) -> IntArray:
    """(choices, choices) the most cycles by which the first is behind the second."""
    cycles = np.array([of_one for of_one, _ in outcomes])
    passed = np.array([of_one for _, of_one in outcomes])
    differs = np.ones(cycles.shape[1], dtype=bool)  # PEs that do the same as their neighbours are compared once
    differs[1:] = ((cycles[:, 1:] != cycles[:, :-1]) | (passed[:, 1:] != passed[:, :-1])).any(axis=0)
    cycles, passed = cycles[:, differs], passed[:, differs]
    return np.array(
        [
            np.where((is_passed & passed) | (mine < NEVER // 2), _AHEAD, mine - cycles).max(axis=1)
            for mine, is_passed in zip(cycles, passed, strict=True)
        ]
    )


def _outcome(piece: Piece, passage: Passage) -> tuple[IntArray, BoolArray]:
    """All that lives on, (outputs,), and what of it is just as it was at the entry, whatever that was."""
    timing = piece.timing
    idle = timing.idle & np.append(np.ones(len(timing.idle) - 1, dtype=bool), not passage.renewed)
    cycles, passed = [passage.free], [idle]
    for slot in timing.exits:
        values = passage.slots[slot]
        cycles.append(values)
        passed.append(np.full(len(values), slot in timing.entries and not passage.renewed))
    latest = max(0, passage.latest)
    cycles.append(np.array([latest]))
    passed.append(np.array([latest == 0]))
    return np.concatenate(cycles), np.concatenate(passed)


def _is_anchored(one: Tried) -> bool:
    """Whether anything in it is counted from the step's beginning, and not from its inputs."""
    return any(piece.timing.starts_by_itself for piece in one.pieces)
