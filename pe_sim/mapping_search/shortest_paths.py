"""Shortest paths: from the prologue through every layer to the end, a label at every place between two parts.

A layer is gone through once for every state in which it is entered, counted from the moment it is entered, whatever
layer it is; over the layers only the results are put one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from pe_sim.engine.fast.recurrences import NEVER
from pe_sim.mapping.workflow import LayerPlan
from pe_sim.mapping_search.candidates import whole_shares
from pe_sim.mapping_search.fragments import Held, Piece, Scene
from pe_sim.mapping_search.grid_dominance import Rivals
from pe_sim.mapping_search.labels import Label, Moment, Where, undominated
from pe_sim.mapping_search.lower_bound import Passage
from pe_sim.mapping_search.pruning import Entry, Prospects, Tried
from pe_sim.mapping_search.space import Choice, Part, choices, plan_of
from pe_sim.units import IntArray

_NO_RIVALS = Rivals({})
Allowed = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Plan:
    """A complete mapping on one division of the PEs, and the least it, or all that it stands for, can cost.

    The energy is 0 where it does not come first.
    """

    layers: tuple[LayerPlan, ...]
    lm_head: str
    cycles: tuple[int, ...]
    energy: int
    stands_for_more: bool
    fits: bool


@dataclass(frozen=True, slots=True)
class Reserve:
    """Least bytes that the watched PE of one step keeps.

    Args:
        parts: of each part of a layer, in order.
        end: of what comes behind the last layer.
    """

    parts: tuple[int, ...]
    end: int

    def behind(self, layers: int, part: int | None = None) -> int:
        """Least bytes that are still to come: of so many whole layers, the parts behind `part`, and the end."""
        later = 0 if part is None else sum(self.parts[part + 1 :])
        return layers * sum(self.parts) + later + self.end


@dataclass(frozen=True, eq=False, slots=True)
class _Begun:
    """What all choices of a part begin with.

    Args:
        matters: earlier choices that its placement depends on.
        places, ready: by step, where its inputs are, and the cycles when they are there.
    """

    matters: Choice
    places: tuple[Where, ...]
    ready: tuple[tuple[IntArray, ...], ...]


@dataclass(eq=False)
class Paths:
    """The search for shortest paths on one division of the PEs.

    Args:
        scenes: one a step; all have the same operators.
        weights: of the steps.
        parts: those of a layer.
        allowed: by layer and field, the options that may be chosen.
        lm_heads: the options for the LM head.
        keep: labels of one place are dropped if so many others are nowhere worse.
        by_energy: less energy comes first.
        capacity: bytes of a PE that parameters and caches may take; None: not watched.
        width: labels kept at one place at most; one stands for all the others.
        limit: mappings that cost as much or more do not matter.
        reserves: by step, what the watched PE keeps at least.
        rivals: choices that need not be looked at beside others.
        rest: by step, least cycles of the watched PE in each layer, and behind the last one.
        most_ways: most ways through a layer that are looked at; with more of them (groups that drift apart enter every
            layer in another state) the layers left count as the least that the watched PE does in them, and get the
            mapping of the one before.
        check: called again and again; what it raises ends the search.
    """

    scenes: tuple[Scene, ...]
    weights: tuple[float, ...]
    parts: tuple[Part, ...]
    allowed: tuple[Allowed, ...]
    lm_heads: tuple[str, ...]
    keep: int = 1
    by_energy: bool = False
    capacity: int | None = None
    width: int = 8
    limit: float = math.inf
    rest: tuple[tuple[float, float], ...] = ()
    reserves: tuple[Reserve, ...] = ()
    rivals: Rivals = _NO_RIVALS
    most_ways: int = 1 << 30
    progress: Callable[[int, int], None] | None = None
    check: Callable[[], None] | None = None
    ways: dict[tuple[object, ...], list[Label]] = field(default_factory=dict)
    prospects: dict[tuple[object, ...], Prospects] = field(default_factory=dict)

    @cached_property
    def _shares(self) -> tuple[int, ...]:
        """The weights as whole numbers: what an energy is multiplied by."""
        return whole_shares(self.weights)

    @cached_property
    def _needed_behind(self) -> tuple[frozenset[str], ...]:
        """By part, the fields that placements of later parts depend on."""
        return tuple(
            frozenset(name for other in self.parts[index + 1 :] for name in other.needs)
            for index in range(len(self.parts))
        )

    def best(self) -> list[Plan]:
        """Complete plans, the best bound first, without those that `keep` others are nowhere worse than."""
        finished: list[tuple[Label, str]] = []
        for stream in ("replicate", "batch"):
            first = self._first(stream)
            if first is None:
                continue
            labels = [first]
            for layer in range(len(self.allowed)):
                if self.progress:
                    self.progress(layer, len(self.allowed))
                labels = self._through_layer(labels, layer, first_stream=stream if layer == 0 else None)
                left = len(self.allowed) - 1 - layer
                if left and len(self.ways) > self.most_ways:
                    finished += [
                        (self._cut_short(label, left), lm_head) for label in labels for lm_head in self.lm_heads
                    ]
                    break
            else:
                finished += self._ends(labels)
        plans = [self._plan(label, lm_head) for label, lm_head in finished]
        return sorted(plans, key=self.figure)

    def figure(self, plan: Plan) -> tuple[float, ...]:
        """The figure to be minimized: a plan's weighted cycles, after its energy where that comes first."""
        cycles = math.fsum(weight * cycles for weight, cycles in zip(self.weights, plan.cycles, strict=True))
        return (plan.energy, cycles) if self.by_energy else (cycles,)

    def _first(self, stream: str) -> Label | None:
        """The label before the first layer; None where the stream is by batch but no first layer leaves it so.

        The prologue leaves the stream by batch if the first layer does.
        """
        part = self.parts[-1]
        if not any(dict(choice)["stream"] == stream for choice in choices(part, self.allowed[0])) and stream == "batch":
            return None
        moments: list[Moment] = []
        pieces: list[Piece] = []
        for scene in self.scenes:
            piece = scene.prologue(stream)
            passage = piece.timing.run(scene.machine.start, (), scene.machine.anywhere)
            ready = tuple(passage.slots[slot] for slot in piece.timing.exits)
            where = tuple((name, Held(held.placement)) for name, held in piece.leaving)
            moments.append(_settled(scene, where, passage, ready, passage.end()))
            pieces.append(piece)
        held = None
        if self.capacity is not None:
            held = np.concatenate([piece.held_bytes for piece in pieces])
        return Label(tuple(moments), self._energy_of(pieces), held, own_bytes=held)

    def _energy_of(self, pieces: Sequence[Piece]) -> int:
        """Energy of the pieces, weighted over the steps; 0 where energy does not come first."""
        return sum(share * one.energy for share, one in zip(self._shares, pieces, strict=True)) if self.by_energy else 0

    @property
    def _watched_pe(self) -> int:
        return self.scenes[0].watched_pe

    def _has_room(self, held: IntArray, layers: int, part: int | None = None) -> bool:
        """Whether what is still to come can fit beside `held`, the bytes of every PE in every step."""
        if self.capacity is None:
            return True
        on_watched = held[self._watched_pe :: len(held) // len(self.scenes)]
        least = [reserve.behind(layers, part) for reserve in self.reserves] or [0] * len(self.scenes)
        return int(held.max()) <= self.capacity and int((on_watched + np.array(least)).max()) <= self.capacity

    def _through_layer(self, labels: list[Label], layer: int, first_stream: str | None) -> list[Label]:
        allowed, leaving = self.allowed[layer], list[Label]()
        layers_left = len(self.allowed) - 1 - layer
        for label in labels:
            origins = [moment.origin for moment in label.moments]
            moments = tuple(_entered(m, origin) for m, origin in zip(label.moments, origins, strict=True))
            key = (
                first_stream,
                tuple(sorted((name, tuple(values)) for name, values in allowed.items())),
                *((m.where, m.free.tobytes(), *(r.tobytes() for r in m.ready)) for m in moments),
            )
            if key not in self.ways:
                held = None if label.held_bytes is None else np.zeros_like(label.held_bytes)
                self.ways[key] = self._through_parts(Label(moments, 0, held, own_bytes=held), allowed, first_stream)
            for way in self.ways[key]:
                after = self._follow(label, way, origins, layers_left)
                if after is not None and self._may_win(after, layers_left):
                    leaving.append(after)
        return undominated(leaving, self.keep, self.width, by_energy=self.by_energy)

    def _may_win(self, label: Label, layers_left: int) -> bool:
        """Whether the watched PE, with the least of everything to come, can be done within the limit."""
        if not self.rest:
            return True
        least = (
            weight * (int(moment.free[self._watched_pe]) + layers_left * layer + end)
            for weight, moment, (layer, end) in zip(self.weights, label.moments, self.rest, strict=True)
        )
        return sum(least) < self.limit

    def _follow(self, label: Label, way: Label, origins: list[int], layers_left: int) -> Label | None:
        """`label`, followed by a layer that was gone through from its entry on; None if that does not fit."""
        held = _sum(label.held_bytes, way.held_bytes)
        if held is not None and not self._has_room(held, layers_left):
            return None
        moments = tuple(
            replace(after := moment.shifted(origin), end=max(after.end, before.end))
            for moment, origin, before in zip(way.moments, origins, label.moments, strict=True)
        )
        more = label.stands_for_more or way.stands_for_more
        own = _sum(label.own_bytes, way.own_bytes)
        return Label(moments, label.energy + way.energy, held, tuple(way.choices()), label, (), more, own)

    def _through_parts(self, entering: Label, allowed: Allowed, first_stream: str | None) -> list[Label]:
        labels = [entering]
        in_time = self.capacity is None and not self.by_energy
        for part in self.parts:
            options = tuple(
                choice
                for choice in choices(part, allowed)
                if not (part.is_target and first_stream and (choice[0][1] == "batch") != (first_stream == "batch"))
            )
            after = []
            for label in labels:
                worth = self.rivals.worth(part, options, allowed, label.moments, self.keep) if in_time else options
                after += self._through_part(label, part, worth)
            labels = undominated(after, self.keep, self.width, by_energy=self.by_energy)
        return [replace(label, moments=tuple(_at_border(moment) for moment in label.moments)) for label in labels]

    def _through_part(self, label: Label, part: Part, options: tuple[Choice, ...]) -> list[Label]:
        """The labels that may come of a label behind a part."""
        if self.check is not None:
            self.check()
        entry = Entry.of(label.moments, part)
        begun = self._begun(label, part)
        key = (part.index, options, begun.matters, begun.places, entry.there)
        known = self.prospects.get(key)
        worth = None if known is None else known.worth(entry, self.keep)
        tried = [
            one
            for choice in options
            if (worth is None or choice in worth) and (one := self._try(label, part, begun, choice)) is not None
        ]
        if known is None:
            self.prospects[key] = Prospects.of(
                entry, tried, by_energy=self.by_energy, watched=self.capacity is not None
            )
        extended = (self._extended(label, part, one) for one in tried)
        return [after for after in extended if after is not None]

    def _begun(self, label: Label, part: Part) -> _Begun:
        """What all choices of a part begin with."""
        matters = tuple(pair for pair in label.matters if pair[0] in part.needs)
        places, ready = [], []
        for moment in label.moments:
            index = {name: number for number, (name, _) in enumerate(moment.where)}
            places.append(tuple(moment.where[index[name]] for name in part.touched))
            ready.append(tuple(moment.ready[index[name]] for name in part.touched))
        return _Begun(matters, tuple(places), tuple(ready))

    def _try(self, label: Label, part: Part, begun: _Begun, choice: Choice) -> Tried | None:
        """A choice, run in every step; None where no rule places it."""
        pieces: list[Piece] = []
        for scene, places in zip(self.scenes, begun.places, strict=True):
            piece = scene.piece(part, choice, begun.matters, places)
            if piece is None:
                return None
            pieces.append(piece)
        passages = tuple(
            piece.timing.run(moment.free, ready, moment.somewhere)
            for piece, moment, ready in zip(pieces, label.moments, begun.ready, strict=True)
        )
        later = tuple(pair for pair in choice if pair[0] in self._needed_behind[part.index])
        return Tried(choice, later, tuple(pieces), passages, self._energy_of(pieces))

    def _extended(self, label: Label, part: Part, tried: Tried) -> Label | None:
        """The label with one choice more; None if that does not fit."""
        held, own = _more(label.held_bytes, tried.pieces), _more(label.own_bytes, tried.pieces)
        if held is not None and not self._has_room(held, len(self.allowed) - 1, part.index):
            return None
        steps = zip(self.scenes, tried.pieces, tried.passages, label.moments, strict=True)
        moments = tuple(_behind(scene, piece, passage, part, moment) for scene, piece, passage, moment in steps)
        energy = label.energy + tried.energy
        return Label(moments, energy, held, (tried.choice,), label, tried.later, label.stands_for_more, own)

    def _ends(self, labels: list[Label]) -> list[tuple[Label, str]]:
        finished: list[tuple[Label, str]] = []
        for label in labels:
            for lm_head in self.lm_heads:
                ended = self._ended(label, lm_head)
                if ended is not None:
                    finished.append((ended, lm_head))
        return finished

    def _cut_short(self, label: Label, layers_left: int) -> Label:
        """A label that is a bound for all that may come behind this one."""
        least, watched = self.rest or ((0.0, 0.0),) * len(self.scenes), self._watched_pe
        moments = tuple(
            replace(moment, end=max(moment.end, int(moment.free[watched]) + math.ceil(layers_left * layer + end)))
            for moment, (layer, end) in zip(label.moments, least, strict=True)
        )
        return replace(label, moments=moments, stands_for_more=True)

    def _ended(self, label: Label, lm_head: str) -> Label | None:
        moments: list[Moment] = []
        pieces: list[Piece] = []
        for scene, moment in zip(self.scenes, label.moments, strict=True):
            piece = scene.epilogue(lm_head, moment.where[0][1])
            if piece is None:
                return None
            passage = piece.timing.run(moment.free, moment.ready, moment.somewhere)
            moments.append(Moment((), passage.somewhere, passage.free, (), max(moment.end, passage.end())))
            pieces.append(piece)
        held, own = _more(label.held_bytes, pieces), _more(label.own_bytes, pieces)
        if held is not None and self.capacity is not None and int(held.max()) > self.capacity:
            return None
        energy = label.energy + self._energy_of(pieces)
        return Label(tuple(moments), energy, held, (), label, (), label.stands_for_more, own)

    def _plan(self, label: Label, lm_head: str) -> Plan:
        layers: list[dict[str, str]] = []
        for choice in label.choices():
            if not layers or "stream" in layers[-1]:
                layers.append({})
            layers[-1].update(choice)
        cycles = tuple(moment.end for moment in label.moments)
        for allowed in self.allowed[len(layers) :]:
            given = {name: of_field[0] for name, of_field in allowed.items() if layers[-1].get(name) not in of_field}
            layers.append(layers[-1] | {name: value for name, value in given.items() if name in layers[-1]})
        plans = tuple(plan_of(layer) for layer in layers)
        fits = label.own_bytes is None or self.capacity is None or int(label.own_bytes.max()) <= self.capacity
        return Plan(plans, lm_head, cycles, label.energy, label.stands_for_more, fits)


def _sum(held: IntArray | None, more: IntArray | None) -> IntArray | None:
    return None if held is None or more is None else held + more


def _more(held: IntArray | None, pieces: Sequence[Piece]) -> IntArray | None:
    return None if held is None else held + np.concatenate([piece.held_bytes for piece in pieces])


def _entered(moment: Moment, origin: int) -> Moment:
    """The moment at a layer's entry, counted from `origin`; a PE free before might as well have become free then."""
    moved = moment.shifted(-origin)
    return replace(moved, free=np.maximum(moved.free, 0), end=0)


def _at_border(moment: Moment) -> Moment:
    """The moment between two layers, where a placement alone says who holds something."""
    where = tuple((name, Held(held.placement)) for name, held in moment.where)
    return replace(moment, where=where, free=np.where(moment.free > NEVER // 2, moment.free, NEVER))


def _behind(scene: Scene, piece: Piece, passage: Passage, part: Part, moment: Moment) -> Moment:
    """One step's state behind a part."""
    ready = dict(zip((name for name, _ in moment.where), moment.ready, strict=True))
    places, leaving = dict(moment.where), dict(piece.leaving)
    if passage.renewed:
        ready = {name: scene.machine.renew(values, passage.somewhere) for name, values in ready.items()}
    slots = dict(zip(leaving, piece.timing.exits, strict=True))
    where = tuple((name, leaving.get(name) or places[name]) for name in part.after)
    arrays = tuple(passage.slots[slots[name]] if name in slots else ready[name] for name in part.after)
    return _settled(scene, where, passage, arrays, max(moment.end, passage.latest))


def _settled(scene: Scene, where: Where, passage: Passage, ready: tuple[IntArray, ...], end: int) -> Moment:
    """The moment with "somewhere" among the holders of the newest value, so that labels in one place are comparable."""
    machine, free = scene.machine, passage.free
    somewhere = machine.among_holders(ready[-1])
    if somewhere.key != passage.somewhere.key:
        free, ready = machine.renew(free, somewhere), tuple(machine.renew(values, somewhere) for values in ready)
    return Moment(where, somewhere, free, ready, end)
