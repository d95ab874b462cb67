"""The search: named workflows, then shortest paths on every division of the PEs, simulated in order of their bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pe_sim.config.network import GraphNetwork
from pe_sim.config.step import Step
from pe_sim.errors import InputError
from pe_sim.graph.families import build_graph
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import Linear
from pe_sim.mapping.grids import grid_ways
from pe_sim.mapping.groups import groups_alive
from pe_sim.mapping.layouts import layouts_of
from pe_sim.mapping.magnitudes import Magnitudes
from pe_sim.mapping.workflow import WORKFLOWS, LayerPlan, Workflow
from pe_sim.mapping_search.candidates import Candidate, Wanted, reason_of, simulated
from pe_sim.mapping_search.grids import grid_options
from pe_sim.mapping_search.infeasible import nothing_fits
from pe_sim.mapping_search.paths import Paths, Plan, Reserve
from pe_sim.mapping_search.pieces import Scene
from pe_sim.mapping_search.result import EXACT, EXACT_ALIKE, Excluded, SearchResult
from pe_sim.mapping_search.rivals import rivals_of
from pe_sim.mapping_search.space import GATED, GRIDDED, LM_HEAD, NORMS, Part, parts_of
from pe_sim.mapping_search.worth import Load, Loads, least, loads_of, worth_trying
from pe_sim.schedule.builders import PREFETCHING_OVERLAP

NAME = "auto"
SUMMARY = "searched: the best distribution of every operator, with all transforms between them"
PLANS_A_LABEL = 64  # simulations that are allowed for every further label kept at a place
_PLANS_A_WAY = 4  # simulations that are allowed for every further way through a layer
_WAYS = 12
_MOST_GROUPINGS = 12
_WIDTH = 4  # labels at a place
_SIMULATED_A_PHASE = 16  # mappings, for what is but a candidate of several steps
_WATCHED = 4  # times as many where memory is short: what is slower may be what fits

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much


@dataclass(eq=False)
class Search:
    """One search.

    Args:
        wanted: what for.
        given: a workflow that says some things already: rules, groups, LM head.
        max_simulations: of mappings beside the named ones.
    """

    wanted: Wanted
    given: Workflow
    max_simulations: int
    progress: Progress | None = None
    candidates: list[Candidate] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)
    seen: dict[tuple[object, ...], Candidate | None] = field(default_factory=dict)
    bounds: list[float] = field(default_factory=list)
    allowance: int = 0  # of simulations, up to the division that is searched
    open_divisions: int = 0
    unmixed: bool = False
    num_tried: int = 0

    def run(self) -> SearchResult:
        """The best mapping.

        Raises:
            InputError: no mapping applies; InfeasibleError where none fits the memories.
        """
        graphs = [build_graph(self.wanted.model, step) for step in self.wanted.steps]
        for graph in graphs:
            Magnitudes.of(graph).check(self.wanted.array)
        self.given.check(graphs[0].num_layers)
        if self.is_free:
            self._try_named(graphs[0])
        self._try_phases()
        divisions = self._groupings(graphs)[::-1]  # what many groups do not need is left for fewer
        for index, groups in enumerate(divisions, start=1):
            self.allowance = math.ceil(self.max_simulations * index / len(divisions))
            self._divide(groups, graphs)
        if not self.candidates:
            raise nothing_fits(self.wanted, graphs, self.excluded)
        best = min(self.candidates, key=lambda one: one.figure)
        exact = not self.open_divisions
        bound = min([*self.bounds, best.cycles]) if len(self.bounds) == self.open_divisions else None
        name = self.given.name
        workflow = replace(best.workflow, name=name, summary=f"{SUMMARY} ({best.name})", source=name)
        reports = tuple(replace(report, workflow=workflow) for report in best.reports)
        winner = replace(best, workflow=workflow, reports=reports)
        count = len(self.candidates)
        proven = EXACT_ALIKE if self.unmixed else EXACT
        proof = proven if exact else f"best of {count:,} simulated"
        return SearchResult(winner, tuple(self.candidates), tuple(self.excluded), proof, bound)

    @property
    def is_free(self) -> bool:
        """Whether nothing is given, so that every named workflow is allowed."""
        return not self.given.rules and self.given.groups == 1 and not self.given.lm_head

    def _try_named(self, graph: OperatorGraph) -> None:
        for index, (name, workflow) in enumerate(sorted(WORKFLOWS.items(), key=lambda entry: entry[1].pipelined)):
            self._tell("named workflows", index, len(WORKFLOWS))
            least_cycles = self._pipeline_bound(graph) if workflow.pipelined else 0.0
            if self.candidates and least_cycles > self._best().cycles:
                self._exclude(name, f"takes at least {least_cycles:,.0f} cycles: not simulated")
                continue
            try:
                self.candidates.append(simulated(name, workflow, self.wanted))
            except InputError as error:
                self._exclude(name, reason_of(error), error)

    def _try_phases(self) -> None:
        """Of several steps, the best mapping of each phase alone, tried on all of them."""
        heaviest: dict[str, tuple[float, Step]] = {}
        for step, weight in zip(self.wanted.steps, self.wanted.weights, strict=True):
            if weight > heaviest.get(step.phase, (0.0, step))[0]:
                heaviest[step.phase] = weight, step
        for phase, (_, step) in heaviest.items() if len(self.wanted.steps) > 1 else ():
            alone = replace(self.wanted, steps=(step,), weights=(1.0,))
            name = f"best for {phase} alone"
            try:
                best = Search(alone, self.given, min(self.max_simulations, _SIMULATED_A_PHASE), self.progress).run()
            except InputError as error:  # what that step needs alone says nothing of what all of them need
                self._exclude(name, reason_of(error))
                continue
            try:
                self.candidates.append(simulated(name, best.workflow, self.wanted))
            except InputError as error:
                self._exclude(name, reason_of(error), error)

    def _pipeline_bound(self, graph: OperatorGraph) -> float:
        """A sequence reads every layer's matrices on the PEs of one stage alone."""
        array = self.wanted.array
        if self.wanted.objective == "energy":
            return 0.0
        size = array.num_pes // min(array.num_pes, graph.num_layers)  # if no PE of it is dead
        matrices = [operator for operator in graph.layer if isinstance(operator, Linear)]
        layer_bytes = sum(operator.weight_bytes(array.dtypes) for operator in matrices)
        prefetched = len(matrices) * array.pe.buffer.prefetch_bytes if array.overlap >= PREFETCHING_OVERLAP else 0
        streamed = max(0.0, layer_bytes / size - prefetched)
        return math.fsum(self.wanted.weights) * graph.num_layers * streamed / array.pe.memory.bytes_per_cycle

    def _groupings(self, graphs: Sequence[OperatorGraph]) -> list[int]:
        """Numbers of groups worth a look: divisors of the PEs, no more than sequences; powers of the arity if many."""
        if self.given.groups > 1:
            return [self.given.groups]
        num_pes, arity = self.wanted.array.num_pes, self.wanted.array.network.arity
        most = min(min(len(graph.shape.new_lens) for graph in graphs), num_pes)
        divisors = [count for count in groups_alive(num_pes, self.wanted.array.dead_pes) if count <= most]
        if len(divisors) <= _MOST_GROUPINGS:
            return divisors
        powers = {arity**exponent for exponent in range(num_pes.bit_length())}
        return [count for count in divisors if count in powers]

    def _divide(self, groups: int, graphs: Sequence[OperatorGraph]) -> None:
        """Searches the mappings with so many groups of PEs."""
        scenes = tuple(self._scene(graph, groups) for graph in graphs)
        lone = scenes[0].layouts.groups.is_lone
        batched = not lone and any(len(graph.shape.new_lens) > groups for graph in graphs)
        grids = grid_options(self.wanted.array, scenes[0].layouts.groups)
        loads = [loads_of(scene, grids, lone=lone) for scene in scenes]
        layers = graphs[0].num_layers
        capacity = self.wanted.array.pe.memory.capacity_bytes
        label = f"{groups} groups" if groups > 1 else "one group"
        held = max(least(of_step, layers, _held) for of_step in loads)
        if held > capacity:
            self._exclude(label, f"PE {scenes[0].watched_pe} holds at least {held:,.0f} bytes, has {capacity:,}")
            return
        options = self._options(loads, layers, capacity - held)
        if options is None:
            return
        parts = parts_of(graphs[0], grids, batched=batched, lone=lone)
        self.unmixed |= not all(part.mixes for part in parts)
        ends = [least(of_step, 0, _cycles) for of_step in loads]
        rest = tuple((least(of_step, 1, _cycles) - end, end) for of_step, end in zip(loads, ends, strict=True))
        reserves = tuple(_reserve(of_step, parts) for of_step in loads)
        paths = replace(
            self._paths(scenes, parts, options), rest=rest, reserves=reserves, rivals=rivals_of(scenes, grids)
        )
        _Division(self, paths, groups, label).search()

    def _scene(self, graph: OperatorGraph, groups: int) -> Scene:
        array, source = self.wanted.array, self.given.source or NAME
        return Scene(array, graph, layouts_of(array, groups, graph.shape, graph.selected_per_sequence, source=source))

    def _options(self, loads: Sequence[Loads], layers: int, spare_bytes: float) -> dict[str, set[str]] | None:
        """By field, the options that can be part of something better than what is known; None: there are none."""
        kept = {name: set(options) for name, options in loads[0].items()}
        for of_step in loads:
            for name, options in worth_trying(of_step, _held, spare_bytes).items():
                kept[name] &= options
        if self.candidates and self.wanted.objective != "energy":
            known = self._best().cycles
            spare = known - self.wanted.weighted([least(of_step, layers, _cycles) for of_step in loads])
            if spare < 0:
                return None
            for of_step, weight in zip(loads, self.wanted.weights, strict=True):
                for name, options in worth_trying(of_step, _cycles, spare / weight).items():
                    kept[name] &= options
        return kept

    def _paths(self, scenes: tuple[Scene, ...], parts: tuple[Part, ...], options: Mapping[str, set[str]]) -> Paths:
        lm_heads = tuple(name for name in LM_HEAD if name in options.get("lm_head", LM_HEAD))
        if self.given.lm_head:
            lm_heads = (self.given.lm_head,)
        elif not any(isinstance(operator, Linear) for operator in scenes[0].graph.epilogue):
            lm_heads = LM_HEAD[:1]  # there is no head to distribute
        free: dict[str, Sequence[str]] = {name: sorted(values) for name, values in options.items()}
        layers = (self._fixed(layer).items() for layer in range(scenes[0].graph.num_layers))
        allowed = tuple({**free, **{name: (value,) for name, value in of_layer}} for of_layer in layers)
        by_energy = self.wanted.objective == "energy"
        return Paths(scenes, self.wanted.weights, parts, allowed, lm_heads, by_energy=by_energy)

    @property
    def limit(self) -> float:
        """Weighted cycles that only what is better stays below."""
        return self._best().cycles if self.candidates and self.wanted.objective != "energy" else math.inf

    def _fixed(self, layer: int) -> dict[str, str]:
        """What is given for a layer; a norm that follows its matrices is left open, as they are."""
        fixed: dict[str, str] = {}
        for rule in self.given.rules:
            if rule.first <= layer and (rule.last is None or layer <= rule.last):
                fixed.update(rule.changes)
        return {name: value for name, value in fixed.items() if not (name in NORMS and value == "follow")}

    def _best(self) -> Candidate:
        return min(self.candidates, key=lambda one: one.figure)

    def _exclude(self, name: str, reason: str, error: InputError | None = None) -> None:
        self.excluded.append(Excluded(name, reason, error))

    def _tell(self, what: str, done: int, of: int) -> None:
        if self.progress:
            self.progress(what, done, of)


@dataclass(eq=False)
class _Division:
    """The search on one division of the PEs."""

    search_: Search
    paths: Paths
    groups: int
    label: str

    def search(self) -> None:
        """Simulates plans in the order of their bounds until none that is left can be better."""
        search, keep, watched = self.search_, 1, False
        capacity = search.wanted.array.pe.memory.capacity_bytes
        while True:
            paths = replace(
                self.paths,
                keep=keep,
                width=self._width(keep, watched=watched),
                most_ways=max(_WAYS, search.max_simulations // _PLANS_A_WAY),
                limit=search.limit,
                capacity=capacity if watched else None,
                progress=lambda done, of: search._tell(self.label, done, of),
                ways={},
                prospects={},
            )
            plans = paths.best()
            if not self._simulate_all(paths, plans) and not watched:
                watched = True  # the best ones do not fit: look for those that do
                continue
            waiting = list(self._promising(paths, plans))
            tried = all(self._key(plan.layers, plan.lm_head) in search.seen for plan in waiting)
            complete = not any(plan.stands_for_more for plan in waiting)
            if tried and complete and len(waiting) < keep and not self._is_graph:
                return  # whatever was dropped is no better than `keep` of these, of which not so many are promising
            if keep * 4 > search.max_simulations // PLANS_A_LABEL:
                break
            keep *= 4
        search.open_divisions += 1
        if not self._is_graph and plans:
            search.bounds.append(paths.figure(plans[0])[-1])
        if search.candidates and plans:
            self._polish(plans[0])

    def _width(self, keep: int, *, watched: bool) -> int:
        """Labels kept at a place: fewer where few simulations are allowed, as many as these where very many are."""
        allowed = self.search_.max_simulations
        width = _WIDTH * keep * min(allowed, PLANS_A_LABEL) // PLANS_A_LABEL
        return max(1, width, allowed // PLANS_A_LABEL) * (_WATCHED if watched else 1)

    def _simulate_all(self, paths: Paths, plans: Sequence[Plan]) -> bool:
        """Simulates what is promising; whether all of it fits."""
        fits = True
        for plan in self._promising(paths, plans):
            key = self._key(plan.layers, plan.lm_head)
            if not plan.fits:  # a bound of others; that it does not fit itself is known
                self.search_.seen.setdefault(key, None)
                fits = False
                continue
            if key not in self.search_.seen and self.search_.num_tried >= self.search_.allowance:
                break
            if self._simulate(plan.layers, plan.lm_head) is None:
                fits = False
                if paths.capacity is None:
                    self.search_.num_tried -= 1  # it has shown that memory is short, and is no try
                    break
        return fits

    @property
    def _is_graph(self) -> bool:
        return isinstance(self.search_.wanted.array.network, GraphNetwork)

    def _promising(self, paths: Paths, plans: Sequence[Plan]) -> Iterator[Plan]:
        for plan in plans:
            known = self.search_.candidates
            if known and paths.figure(plan) >= self.search_._best().figure:
                return
            yield plan

    def _key(self, layers: Sequence[LayerPlan], lm_head: str) -> tuple[object, ...]:
        return (self.groups, tuple(layers), lm_head)

    def _simulate(self, layers: Sequence[LayerPlan], lm_head: str) -> Candidate | None:
        """The candidate; None if it does not fit."""
        search = self.search_
        key = self._key(layers, lm_head)
        if key in search.seen:
            return search.seen[key]
        workflow = Workflow(NAME, SUMMARY, _period(layers), groups=self.groups, lm_head=lm_head)
        try:
            found: Candidate | None = simulated(f"{self.label}, plan {len(search.seen) + 1}", workflow, search.wanted)
        except InputError:
            found = None
        search.seen[key] = found
        search.num_tried += 1
        if found is not None:
            search.candidates.append(found)
        return found

    def _polish(self, plan: Plan) -> None:
        """Where the bound and the engine differ: every layer alike, and single changes as long as they help."""
        search = self.search_
        for layer in dict.fromkeys(plan.layers):
            self._simulate([layer] * len(plan.layers), plan.lm_head)
        improved = True
        while improved and search.num_tried < search.allowance:
            improved = False
            best = search._best()
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
        """Of a grid for all of an FFN or for down alone, whether something else is nowhere worse."""
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
