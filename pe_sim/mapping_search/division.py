"""The state of a search, and the search on one division of the PEs into groups: shortest paths, then simulations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from pe_sim.config.networks.network import GraphNetwork
from pe_sim.errors import InputError, OutOfMemoryError
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import Linear
from pe_sim.mapping.groups import grid_ways
from pe_sim.mapping.layouts import layouts_of
from pe_sim.mapping.workflow import WORKFLOWS, LayerPlan, Workflow
from pe_sim.mapping_search.budget import Budget, Progress, Telling
from pe_sim.mapping_search.candidates import Candidate, Wanted, in_groups, simulated, takes_groups
from pe_sim.mapping_search.fragments import Scene
from pe_sim.mapping_search.grid_dominance import Rivals, grid_options, rivals_of
from pe_sim.mapping_search.pruning import Load, Loads, least, loads_of, worth_trying
from pe_sim.mapping_search.result import Excluded, best_so_far
from pe_sim.mapping_search.shortest_paths import Allowed, Paths, Plan, Reserve
from pe_sim.mapping_search.space import GATED, GRIDDED, LM_HEAD, NORMS, Part, parts_of

NAME = "auto"
SUMMARY = "searched: the best distribution of every operator, with all transforms between them"
PLANS_A_LABEL = 64  # allowed simulations for every further label kept at a place
_PLANS_A_WAY = 4  # allowed simulations for every further way through a layer
_WAYS = 12
_WIDTH = 4  # labels kept at a place
_WATCHED = 4  # times as many where memory is short: a slower mapping may be the one that fits


@dataclass(eq=False)
class SearchState(Telling):
    """The state of a search: what is asked of it, and what it has found so far.

    Args:
        wanted: the model, array, steps and objective that a mapping is searched for.
        given: a workflow that fixes some things already: rules, groups, LM head.
        max_simulations: most mappings that are simulated beside the named ones.
        budget: the time it may take.
        unbounded: number of named workflows that no division's bound holds for, and that are still to be simulated.
    """

    wanted: Wanted
    given: Workflow
    max_simulations: int
    progress: Progress | None = None
    budget: Budget = field(default_factory=Budget)
    candidates: list[Candidate] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)
    seen: dict[tuple[object, ...], Candidate | None] = field(default_factory=dict)
    allowance: int = 0  # simulations allowed up to and including the division that is searched
    unbounded: int = 0
    unmixed: bool = False
    num_tried: int = 0

    @property
    def bound(self) -> float | None:
        """Lower bound on the weighted cycles of every mapping; None where none is known."""
        return None

    def best(self) -> Candidate:
        """The best candidate so far; there has to be one."""
        return min(self.candidates, key=lambda one: one.figure)

    @property
    def limit(self) -> float:
        """Weighted cycles that a better mapping stays below; infinite without a candidate, or where energy decides."""
        return self.best().cycles if self.candidates and self.wanted.objective != "energy" else math.inf

    def check(self) -> None:
        """Raises OutOfTimeError if the time is used up, but not while named workflows are left and none has fitted."""
        if self.candidates or not self.unbounded:
            self.budget.check()

    def scene(self, graph: OperatorGraph, groups: int) -> Scene:
        """The scene of one step with so many groups of PEs."""
        array, source = self.wanted.array, self.given.source or NAME
        return Scene(array, graph, layouts_of(array, groups, graph.shape, graph.selected_per_sequence, source=source))

    def fixed(self, layer: int) -> dict[str, str]:
        """The fields that are given for a layer; a norm that follows its matrices is left open, as they are."""
        fixed: dict[str, str] = {}
        for rule in self.given.rules:
            if rule.first <= layer and (rule.last is None or layer <= rule.last):
                fixed.update(rule.changes)
        return {name: value for name, value in fixed.items() if not (name in NORMS and value == "follow")}

    def best_in_words(self) -> list[str]:
        """The best cycles so far and their gap to the bound, in words; empty while there is no candidate."""
        return best_so_far(self.best().cycles, self.bound) if self.candidates else []


@dataclass(eq=False)
class Division:
    """The search on one division of the PEs.

    Args:
        bound: lower bound on the weighted cycles of its mappings; None where none is known.
        is_open: whether a better mapping may be left in it.
    """

    search_: SearchState
    groups: int
    scenes: tuple[Scene, ...]
    grids: tuple[str, ...]
    loads: tuple[Loads, ...]
    parts: tuple[Part, ...]
    bound: float | None
    is_open: bool = True

    @classmethod
    def of(cls, search: SearchState, groups: int, graphs: Sequence[OperatorGraph]) -> Division:
        """The division into so many groups of PEs, with its bound where one is known."""
        scenes = tuple(search.scene(graph, groups) for graph in graphs)
        lone = scenes[0].layouts.groups.is_lone
        batched = not lone and any(len(graph.shape.new_lens) > groups for graph in graphs)
        grids = grid_options(search.wanted.array, scenes[0].layouts.groups)
        loads = tuple(loads_of(scene, grids, lone=lone) for scene in scenes)
        parts = parts_of(graphs[0], grids, batched=batched, lone=lone)
        found = cls(search, groups, scenes, grids, loads, parts, None)
        if not found._is_graph and search.wanted.objective != "energy":
            found.bound = found._least_cycles
        return found

    @property
    def label(self) -> str:
        """Its number of groups, in words."""
        return f"{self.groups} groups" if self.groups > 1 else "one group"

    @cached_property
    def held_bytes(self) -> float:
        """Fewest bytes that the watched PE keeps under any mapping."""
        return max(least(of_step, self._layers, _held) for of_step in self.loads)

    @cached_property
    def _least_cycles(self) -> float:
        """Weighted cycles of all that the watched PE has to do, each operator with its best distribution."""
        return self.search_.wanted.weighted([least(of_step, self._layers, _cycles) for of_step in self.loads])

    @property
    def _layers(self) -> int:
        return self.scenes[0].graph.num_layers

    def lowest(self) -> tuple[float, int]:
        """Sort key of divisions: the lowest bound comes first; of equals the one with fewer groups."""
        return (self._least_cycles if self.bound is None else self.bound), self.groups

    def try_named(self) -> None:
        """Simulates the named workflows in these groups, those for which that takes little time."""
        search = self.search_
        for named in WORKFLOWS.values():
            key = self._key([named.plan(layer) for layer in range(self._layers)], named.lm_head)
            if self.groups > 1 and takes_groups(named) and key not in search.seen:  # else known by another name
                found = in_groups(named, self.groups, search.wanted, search.check)
                if found is not None:
                    search.seen[key] = found
                    search.candidates.append(found)

    def look(self) -> None:
        """Keeps one partial mapping a place and simulates the best plan: a good mapping and a bound at little cost."""
        paths = self._paths(keep=1, width=1, watched=False)
        plans = [] if paths is None else paths.best()
        self._learn(paths, plans)
        promising = [] if paths is None else list(self._promising(paths, plans))
        if not promising and not (paths is not None and self._is_graph):
            self._close()
        for plan in promising[:1]:
            self._simulate(plan.layers, plan.lm_head)

    def search(self) -> None:
        """Simulates plans in the order of their bounds until none that is left can be better."""
        search, keep, watched = self.search_, 1, False
        while True:
            paths = self._paths(keep=keep, width=self._width(keep, watched=watched), watched=watched)
            if paths is None:
                self._close()
                return
            plans = paths.best()
            self._learn(paths, plans)
            if not self._simulate_all(paths, plans) and not watched:
                watched = True  # the best ones do not fit: look for those that do
                continue
            waiting = list(self._promising(paths, plans))
            tried = all(self._key(plan.layers, plan.lm_head) in search.seen for plan in waiting)
            complete = not any(plan.stands_for_more for plan in waiting)
            if tried and complete and len(waiting) < keep and not self._is_graph:
                # Whatever was dropped is no better than `keep` of these, of which not so many are promising.
                self._close()
                return
            if keep * 4 > search.max_simulations // PLANS_A_LABEL:
                break
            keep *= 4
        if search.candidates and plans:
            self._polish(plans[0])

    def _learn(self, paths: Paths | None, plans: Sequence[Plan]) -> None:
        """Raises the bound to that of the best plan; on a graph network paths give no bound."""
        if paths is not None and plans and not self._is_graph:
            self.bound = max(self.bound or 0.0, paths.figure(plans[0])[-1])

    def _close(self) -> None:
        """Marks that nothing better is left in the division, and forgets what was remembered for it."""
        self.is_open = False
        for scene in self.scenes:
            scene.pieces.clear()
            scene.machine.known.clear()

    def _paths(self, *, keep: int, width: int, watched: bool) -> Paths | None:
        """Shortest paths over the options that can be part of a better mapping; None if there are none."""
        search, loads = self.search_, self.loads
        capacity = search.wanted.array.pe.memory.capacity_bytes
        options = self._options(capacity - self.held_bytes)
        if options is None:
            return None
        search.unmixed |= not all(part.mixes for part in self.parts)
        ends = [least(of_step, 0, _cycles) for of_step in loads]
        self.paths = Paths(
            self.scenes,
            search.wanted.weights,
            self.parts,
            self._allowed(options),
            self._lm_heads(options),
            keep=keep,
            by_energy=search.wanted.objective == "energy",
            capacity=capacity if watched else None,
            width=width,
            limit=search.limit,
            reserves=tuple(_reserve(of_step, self.parts) for of_step in loads),
            rivals=self._rivals,
            rest=tuple((least(of_step, 1, _cycles) - end, end) for of_step, end in zip(loads, ends, strict=True)),
            most_ways=max(_WAYS, search.max_simulations // _PLANS_A_WAY),
            progress=lambda done, of: search.tell(self.label, done, of),
            check=search.check,
        )
        return self.paths

    def _allowed(self, options: Mapping[str, set[str]]) -> tuple[Allowed, ...]:
        """By layer and field, the options allowed: the given one, or those worth trying."""
        free: dict[str, Sequence[str]] = {name: sorted(values) for name, values in options.items()}
        layers = (self.search_.fixed(layer).items() for layer in range(self._layers))
        return tuple({**free, **{name: (value,) for name, value in of_layer}} for of_layer in layers)

    def _lm_heads(self, options: Mapping[str, set[str]]) -> tuple[str, ...]:
        if self.search_.given.lm_head:
            return (self.search_.given.lm_head,)
        if not any(isinstance(operator, Linear) for operator in self.scenes[0].graph.epilogue):
            return LM_HEAD[:1]  # there is no head to distribute
        return tuple(name for name in LM_HEAD if name in options.get("lm_head", LM_HEAD))

    @cached_property
    def _rivals(self) -> Rivals:
        return rivals_of(self.scenes, self.grids)

    def _options(self, spare_bytes: float) -> dict[str, set[str]] | None:
        """By field, the options that can be part of a better mapping than those known; None if there are none."""
        search, kept = self.search_, {name: set(options) for name, options in self.loads[0].items()}
        for of_step in self.loads:
            for name, options in worth_trying(of_step, _held, spare_bytes).items():
                kept[name] &= options
        if search.limit < math.inf:
            spare = search.limit - self._least_cycles
            if spare < 0:
                return None
            for of_step, weight in zip(self.loads, search.wanted.weights, strict=True):
                for name, options in worth_trying(of_step, _cycles, spare / weight).items():
                    kept[name] &= options
        return kept

    def _width(self, keep: int, *, watched: bool) -> int:
        """Most labels kept at a place: fewer where few simulations are allowed, more where very many are."""
        allowed = self.search_.max_simulations
        width = _WIDTH * keep * min(allowed, PLANS_A_LABEL) // PLANS_A_LABEL
        return max(1, width, allowed // PLANS_A_LABEL) * (_WATCHED if watched else 1)

    def _simulate_all(self, paths: Paths, plans: Sequence[Plan]) -> bool:
        """Simulates the promising plans, as many as are allowed, and returns whether all of these fit."""
        fits = True
        for plan in self._promising(paths, plans):
            key = self._key(plan.layers, plan.lm_head)
            if not plan.fits:  # it stands for others as a bound, but is known not to fit itself
                self.search_.seen.setdefault(key, None)
                fits = False
                continue
            if key not in self.search_.seen and self.search_.num_tried >= self.search_.allowance:
                break
            if self._simulate(plan.layers, plan.lm_head) is None:
                fits = False
                if paths.capacity is None:
                    self.search_.num_tried -= 1  # it has shown that memory is short, and does not count
                    break
        return fits

    @property
    def _is_graph(self) -> bool:
        return isinstance(self.search_.wanted.array.network, GraphNetwork)

    def _promising(self, paths: Paths, plans: Sequence[Plan]) -> Iterator[Plan]:
        for plan in plans:
            known = self.search_.candidates
            if known and paths.figure(plan) >= self.search_.best().figure:
                return
            yield plan

    def _key(self, layers: Sequence[LayerPlan], lm_head: str) -> tuple[object, ...]:
        return (self.groups, tuple(layers), lm_head)

    def _simulate(self, layers: Sequence[LayerPlan], lm_head: str) -> Candidate | None:
        """The simulated candidate of a plan; None if it does not apply or fit."""
        search = self.search_
        key = self._key(layers, lm_head)
        if key in search.seen:
            return search.seen[key]
        workflow = Workflow(NAME, SUMMARY, _period(layers), groups=self.groups, lm_head=lm_head)
        try:
            name = f"{self.label}, plan {len(search.seen) + 1}"
            found: Candidate | None = simulated(name, workflow, search.wanted, search.check)
        except OutOfMemoryError:
            raise
        except InputError:
            found = None
        search.seen[key] = found
        search.num_tried += 1
        if found is not None:
            search.candidates.append(found)
        return found

    def _polish(self, plan: Plan) -> None:
        """Tries all layers alike, then single changes as long as they help: bound and engine may differ."""
        search = self.search_
        for layer in dict.fromkeys(plan.layers):
            self._simulate([layer] * len(plan.layers), plan.lm_head)
        improved = True
        while improved and search.num_tried < search.allowance:
            improved = False
            best = search.best()
            if best.workflow.groups != self.groups or best.name in WORKFLOWS:
                return
            layers = [best.workflow.plan(layer) for layer in range(len(plan.layers))]
            for changed in self._neighbours(layers):
                if search.num_tried >= search.allowance:
                    return
                found = self._simulate(changed, best.workflow.lm_head)
                if found is not None and found.figure < best.figure:
                    improved = True
                    break

    def _neighbours(self, layers: Sequence[LayerPlan]) -> Iterator[list[LayerPlan]]:
        allowed = self.paths.allowed[0]
        for part in self.paths.parts:
            for name, options in part.options:
                for option in options:
                    fields = GRIDDED if name in GATED and grid_ways(option) else (name,)
                    is_open = all(option in allowed.get(each, (option,)) for each in fields)
                    if is_open and not self._is_beaten(part, name, option):
                        changed = [replace(layer, **dict.fromkeys(fields, option)) for layer in layers]
                        if changed != layers:
                            yield changed

    def _is_beaten(self, part: Part, name: str, option: str) -> bool:
        """Whether another option is nowhere worse than this one, a grid for all of an FFN or for down alone."""
        on_slices = (("activation", "shard"),) if name in GATED else ()
        choice = ((name, option), *on_slices)
        return self.paths.rivals.beat(part, choice, self.paths.allowed[0], (), 1)


def _reserve(loads: Loads, parts: Sequence[Part]) -> Reserve:
    fields = [[loads[name] for name, _ in part.options if name in loads] for part in parts]
    of_parts = (sum(_fewest(options) for options in of_part) for of_part in fields)
    return Reserve(tuple(of_parts), _fewest(loads["lm_head"]) if "lm_head" in loads else 0)


def _fewest(options: Mapping[str, Load]) -> int:
    return min(load.held_bytes for load in options.values())


def _held(load: Load) -> float:
    return float(load.held_bytes)


def _cycles(load: Load) -> float:
    return load.cycles


def _period(layers: Sequence[LayerPlan]) -> tuple[LayerPlan, ...]:
    """The shortest pattern that gives these layers."""
    for length in range(1, len(layers)):
        if all(plan == layers[index % length] for index, plan in enumerate(layers)):
            return tuple(layers[:length])
    return tuple(layers)
