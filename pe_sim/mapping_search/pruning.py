"""Choices that cannot pay: by bounds before anything runs, or by what came of them from one entry.

Nothing in a piece is counted from anywhere but its inputs, and later inputs never give earlier outputs. So if no input
comes more than `late` cycles later than in the first entry and none more than `early` cycles earlier, every output of
every choice is as much later or earlier at most. A choice that was behind another one by more than both together, in
everything that lives on, is behind it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pe_sim.engine.fast.recurrences import NEVER
from pe_sim.graph.operators import Linear, Rows
from pe_sim.mapping.distributions import feature_shard
from pe_sim.mapping.groups import grid_ways
from pe_sim.mapping.placement import Placement, Replicate, Shard
from pe_sim.mapping_search.fragments import Piece, Scene
from pe_sim.mapping_search.grid_dominance import matrix_columns
from pe_sim.mapping_search.labels import Moment
from pe_sim.mapping_search.lower_bound import Passage, matrix_cycles
from pe_sim.mapping_search.space import ATTENTION, Choice, Part, matrix_options
from pe_sim.schedule.matrix import gemm_work, scores_work, values_work
from pe_sim.units import BoolArray, IntArray

_AHEAD = NEVER // 2  # cycles where there is nothing to compare: as far ahead as can be


@dataclass(frozen=True, eq=False, slots=True)
class Tried:
    """A choice that was run from some entry; pieces and passages are one a step.

    Args:
        later: the part of the choice that later placements depend on.
        energy: as in `Label`.
    """

    choice: Choice
    later: Choice
    pieces: tuple[Piece, ...]
    passages: tuple[Passage, ...]
    energy: int

    @property
    def place(self) -> tuple[object, ...]:
        """Key of its place: choices with the same one can be followed by the same choices."""
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
        """The entry from a partial mapping; a PE that was free before any value was there counts as free since then."""
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
        """(steps,) the range of the inputs' delays against another entry, the largest less the smallest, in cycles."""
        apart = [mine - its for mine, its in zip(self.cycles, other.cycles, strict=True)]
        return np.array([difference.max() - difference.min() for difference in apart])


@dataclass(frozen=True, eq=False, slots=True)
class _Rivals:
    """Choices that leave the same things in the same places.

    Args:
        behind: (steps, choices, choices) most cycles by which the first is behind the second; negative: it is ahead.
        may_beat: (choices, choices) whether the first beats the second if it is ahead.
        beats_anyway: (choices, choices) whether the first beats the second even if it is not ahead.
    """

    choices: tuple[Choice, ...]
    behind: IntArray
    may_beat: BoolArray
    beats_anyway: BoolArray

    def worth(self, spread: IntArray, keep: int) -> list[Choice]:
        """The choices that fewer than `keep` others beat, from any entry with this spread."""
        ahead = (self.behind <= -spread[:, None, None]).all(axis=0)
        beats = (ahead & self.may_beat) | self.beats_anyway
        # Of two that beat each other, and so are equal, only the first counts as beating the second.
        beats &= ~beats.T | np.triu(np.ones_like(beats), 1)
        return [choice for choice, rivals in zip(self.choices, beats.sum(axis=0), strict=True) if rivals < keep]


@dataclass(frozen=True, eq=False, slots=True)
class Prospects:
    """What all choices of a part came to from one entry."""

    entry: Entry
    rivals: tuple[_Rivals, ...]

    @classmethod
    def of(cls, entry: Entry, tried: Sequence[Tried], *, by_energy: bool, watched: bool) -> Prospects:
        """The prospects from all choices that could be placed.

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
    """(outputs,) cycles of all that lives on, and whether each is just as it was at the entry, whatever that was."""
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


# ---- What is not worth looking at: options whose own work, with the least of all else, exceeds the best known.


_ATTENTIONS = ("head", "token")  # how the heads' features can be cut


@dataclass(frozen=True, slots=True)
class Load:
    """Cycles and bytes of one option of one operator on the watched PE."""

    cycles: float
    held_bytes: int


Loads = Mapping[str, Mapping[str, Load]]  # by field and option


def loads_of(scene: Scene, grids: tuple[str, ...], *, lone: bool) -> dict[str, dict[str, Load]]:
    """By field and option, the loads of the matrices and attention of one layer, and of the LM head.

    Args:
        grids: options that cut both dims of an FFN's matrices.
        lone: one PE a group, where all options are the same thing.
    """
    loads: dict[str, dict[str, Load]] = {}
    for operator in (*scene.graph.layer, *scene.graph.epilogue):
        if isinstance(operator, Linear):
            name = operator.name if operator in scene.graph.layer else "lm_head"
            options = ("replicate",) if lone else matrix_options(operator, grids)
            loads[name] = {option: _linear(scene, operator, option) for option in options}
    loads["attention"] = {option: _attention(scene, option) for option in (("replicate",) if lone else ATTENTION)}
    return loads


def least(loads: Loads, layers: int, figure: Callable[[Load], float]) -> float:
    """The sum of a figure over all layers and the LM head, each operator at its best."""
    smallest = {name: min(figure(load) for load in options.values()) for name, options in loads.items()}
    return layers * sum(value for name, value in smallest.items() if name != "lm_head") + smallest.get("lm_head", 0)


def worth_trying(loads: Loads, figure: Callable[[Load], float], spare: float) -> dict[str, set[str]]:
    """By field, the options that take no more than `spare` beyond the best one."""
    kept: dict[str, set[str]] = {}
    for name, options in loads.items():
        best = min(figure(load) for load in options.values())
        kept[name] = {option for option, load in options.items() if figure(load) - best <= spare}
    return kept


def _linear(scene: Scene, operator: Linear, option: str) -> Load:
    layouts, array, pe = scene.layouts, scene.array, scene.watched_pe
    tensor_rows = operator.outputs[0].rows
    place: Placement = Shard("batch") if option == "batch" else Replicate()
    rows = layouts.pe_rows(tensor_rows, place)[pe : pe + 1]

    def columns(dim: str, size: int, *, cut: bool) -> IntArray:
        if not cut:
            return np.array([size], dtype=np.int64)
        cuts = [layouts.pe_columns(dim, size, feature_shard(dim, attention)) for attention in _ATTENTIONS]
        return np.minimum(*(cut[pe : pe + 1] for cut in cuts))

    if grid_ways(option) is None:
        inner = columns(operator.in_dim, operator.in_size, cut=option == "col")
        outer = columns(operator.out_dim, operator.out_size, cut=option == "row")
    else:
        inner, outer = (columns[pe : pe + 1] for columns in matrix_columns(operator, layouts, option))
    work = gemm_work(array, rows, inner, outer)
    cycles = int(matrix_cycles(work, array)[0]) if rows[0] * inner[0] * outer[0] else 0
    return Load(cycles, int(np.asarray(array.dtypes.weight.matrix_bytes(outer, inner))[0]))


def _attention(scene: Scene, option: str) -> Load:
    layouts, array, pe = scene.layouts, scene.array, scene.watched_pe
    split = layouts.attention_split(option)
    works = (scores_work(array, split), values_work(array, split))
    busy = bool(split.q_heads[pe]) and bool(
        layouts.pe_rows(Rows.ALL, Shard("batch") if option == "batch" else Replicate())[pe]
    )
    cycles = sum(int(matrix_cycles(work, array)[pe]) for work in works) if busy else 0
    if not scene.graph.keeps_cache:
        return Load(cycles, 0)
    rows = split.cached_tokens() * split.kv_heads
    return Load(cycles, 2 * int(np.asarray(array.dtypes.kv_cache.matrix_bytes(rows, split.dims))[pe]))
