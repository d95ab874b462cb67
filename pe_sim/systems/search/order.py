"""Which plans and workflows promise most: by lower bounds first, then by estimates from two short models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.step import Decode, Step
from pe_sim.engine.system_engines import system_engine_named
from pe_sim.errors import InputError, OutOfMemoryError
from pe_sim.mapping.workflow import Workflow
from pe_sim.schedule import link_ops
from pe_sim.systems.array_view import own_step
from pe_sim.systems.microbatches import Part, parts_of
from pe_sim.systems.search.space import Refused, Shape, Space
from pe_sim.systems.search.workflows import Option, Workflows
from pe_sim.systems.simulation import scripted
from pe_sim.systems.timing import Timer
from pe_sim.units import ceil_div

_WORTH = 1.1  # shapes whose bound is up to so many times the best estimate are looked at
_WITH_ALL = 8  # most promising candidates whose shapes are estimated under every workflow
_STAGES = 3  # most sizes of a stage for which a workflow is searched, until one has room
_NO_MEANING = "the workflow cannot do this step, or has no meaning across arrays"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A shape and a workflow, with the estimate or bound in cycles by which it is put in order."""

    shape: Shape
    option: Option
    estimate: float


@dataclass
class Order:
    """Puts the candidates of a search in order.

    Args:
        by_period: whether steps that follow one another are to take least, rather than one alone.
        few: up to so many candidates are taken without an estimate.
        tell: called with what is done, how much of it is, and of how much.
        check: called again and again; what it raises ends it.
    """

    space: Space
    options: Workflows
    by_period: bool
    few: int
    tell: Callable[[str, int, int], None]
    check: Callable[[], None] | None = None
    refused: list[Refused] = field(default_factory=list)
    estimated: int = 0
    possible: int = 0
    is_whole: bool = False  # whether all candidates were taken, without an estimate
    shapes: list[Shape] = field(default_factory=list)
    found: list[Candidate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.estimator = Estimator(self.space, self.check)

    def so_far(self) -> list[Candidate]:
        """The candidates estimated so far, the best first; then all that can fit, by bound, with named workflows."""
        named = self.options.named()
        rest = (Candidate(shape, option, float(self._bound(shape))) for shape in self.shapes for option in named)
        return [*sorted(self.found, key=lambda one: one.estimate), *rest]

    def candidates(self, max_searches: int) -> list[Candidate]:
        """The candidates, the best first.

        Args:
            max_searches: most searches of workflows for shares.
        """
        shapes = self.shapes = self._fitting()
        named, searched = self.options.named(), self.options.is_searched
        self.possible = len(shapes) * (len(named) + searched)
        if self.possible <= self.few:
            self.is_whole = True
            return self._all(shapes)
        probes = self._probes(shapes, max_searches)
        found = self.found
        for shape in self._promising([shape for shape in shapes if shape.tp in probes], found):
            self.tell("estimated", self.estimated, len(shapes))
            found += self._estimates(shape, (probes[shape.tp],))
        found.sort(key=lambda one: one.estimate)
        for index, one in enumerate(found[:_WITH_ALL]):
            self.tell("compared workflows", index, _WITH_ALL)
            found += self._estimates(one.shape, [option for option in named if option != one.option])
        return sorted(found, key=lambda one: one.estimate)

    def _fitting(self) -> list[Shape]:
        """Shapes whose weights and caches can fit, those with the least bounds first."""
        shapes, refused = self.space.shapes
        self.refused += refused
        streams = any(option.workflow.stream_weights for option in self.options.named())
        found = []
        for shape in shapes:
            needed, capacity = self.space.least_bytes_per_pe(shape), self.space.capacity_bytes
            if needed <= capacity or streams:
                found.append(shape)
            elif shape.microbatches == 1:  # parts make no difference to memory
                self.refused.append(Refused(str(shape), "", "memory of a PE", needed, capacity))
        return sorted(found, key=self._bound)

    def _bound(self, shape: Shape) -> int:
        return self.space.least_period(shape) if self.by_period else self.space.least_cycles(shape)

    def _all(self, shapes: Sequence[Shape]) -> list[Candidate]:
        found: list[Candidate] = []
        for shape in shapes:
            options = list(self.options.named())
            if self.options.is_searched:
                searched = self.estimator.searched(shape, self.options)
                options += [searched] if searched else []
            found += [Candidate(shape, option, float(self._bound(shape))) for option in options]
        return found

    def _probes(self, shapes: Sequence[Shape], max_searches: int) -> dict[int, Option]:
        """By tp, the workflow that its shapes are estimated under: searched, or the best named one."""
        firsts: dict[int, Shape] = {}
        alike: dict[int, dict[int, Shape]] = {}  # by tp, the first shape for each size of a stage
        for shape in shapes:
            firsts.setdefault(shape.tp, shape)
            alike.setdefault(shape.tp, {}).setdefault(self.estimator.stage_layers(shape), shape)
        best_named: dict[int, Candidate] = {}
        for tp, first in firsts.items():
            ranked = sorted(self._estimates(first, self.options.named()), key=lambda one: one.estimate)
            if ranked:
                best_named[tp] = ranked[0]
        found = {tp: one.option for tp, one in best_named.items()}
        if not self.options.is_searched:
            return found
        promising = sorted(firsts, key=lambda tp: best_named[tp].estimate if tp in best_named else 0.0)
        for index, tp in enumerate(promising[:max_searches]):
            self.tell("searched for shares", index, min(max_searches, len(promising)))
            for first in list(alike[tp].values())[:_STAGES]:
                option = self.estimator.searched(first, self.options)
                if option is not None:
                    found[tp] = option
                    break
        return found

    def _promising(self, shapes: Sequence[Shape], found: Sequence[Candidate]) -> Iterator[Shape]:
        """Shapes until their bounds say that the rest is not worth a look; `found` grows meanwhile."""
        for shape in shapes:
            best = min((one.estimate for one in found), default=None)
            if best is not None and self._bound(shape) > _WORTH * best:
                return
            yield shape

    def _estimates(self, shape: Shape, options: Sequence[Option]) -> Iterator[Candidate]:
        for option in options:
            make = self.estimator.period if self.by_period else self.estimator.cycles
            estimate = make(shape, option.workflow)
            self.estimated += 1
            if estimate is not None:
                yield Candidate(shape, option, estimate)
            elif not any(one.shape == str(shape) and one.workflow == option.label for one in self.refused):
                self.refused.append(Refused(str(shape), option.label, _NO_MEANING))


# ---- How long a plan would take, roughly: two short models on the arrays of one stage give what a layer adds.


_FEW, _MORE = 2, 4  # layers; even, since workflows may take turns
_ENGINE = "fast"


@dataclass(frozen=True, slots=True)
class Line:
    """Cycles of one part on one stage: the ends of the model, and each layer."""

    ends: float
    layer: float


@dataclass
class Estimator:
    """Estimates plans of one space; what was tried before is known.

    Args:
        check: called again and again; what it raises ends the estimate.
    """

    space: Space
    check: Callable[[], None] | None = None
    _lines: dict[tuple[object, ...], Line | None] = field(default_factory=dict)

    def cycles(self, shape: Shape, workflow: Workflow) -> float | None:
        """Estimated cycles of a step, without queues before links; None where the workflow cannot do it."""
        found = self._of_parts(shape, workflow)
        return None if found is None else found[0] + (len(self._parts(shape)) - 1) * found[1]

    def period(self, shape: Shape, workflow: Workflow) -> float | None:
        """Estimate of `Tried.period_cycles`; None where the workflow cannot do the step."""
        found = self._of_parts(shape, workflow)
        if found is None:
            return None
        busy = len(self._parts(shape)) * found[1]
        return max(found[0], busy) if isinstance(self.space.step, Decode) else busy

    def _of_parts(self, shape: Shape, workflow: Workflow) -> tuple[float, float] | None:
        """Estimated cycles of a part's way through all stages, and of its time in the longest of them."""
        space = self.space
        part = self.part_step(shape)
        line = self._line(shape, part, workflow)
        if line is None:
            return None
        layers = space.model.num_layers
        stage = max(line.layer * ceil_div(layers, shape.pp), line.layer * (layers // shape.pp) + line.ends)
        way = line.ends + layers * line.layer
        if shape.pp > 1:
            way += (shape.pp - 1) * self._handing_over(part)
        return way, stage

    def searched(self, shape: Shape, options: Workflows) -> Option | None:
        """The workflow that is searched for an array of the shape; None: there is none."""
        return options.of_share(shape.tp, self.part_step(shape), self.stage_layers(shape))

    def stage_layers(self, shape: Shape) -> int:
        """Layers of the largest stage."""
        return ceil_div(self.space.model.num_layers, shape.pp)

    def part_step(self, shape: Shape) -> Step:
        """The step of the part in the middle of the first pipeline, alone."""
        parts = self._parts(shape)
        spans = parts[len(parts) // 2].spans
        return own_step(self.space.step, [(span.new_len, span.context_len) for span in spans])

    def _parts(self, shape: Shape) -> tuple[Part, ...]:
        return parts_of(self.space.model, self.space.step, self.space.sequences(shape), shape.microbatches)

    def _line(self, shape: Shape, part: Step, workflow: Workflow) -> Line | None:
        key = (shape.tp, shape.cp, part, workflow)
        if key not in self._lines:
            try:
                few, more = (self._measured(shape, part, workflow, layers) for layers in (_FEW, _MORE))
                layer = (more - few) / (_MORE - _FEW)
                self._lines[key] = Line(few - _FEW * layer, layer)
            except OutOfMemoryError:
                raise
            except InputError:
                self._lines[key] = None
        return self._lines[key]

    def _measured(self, shape: Shape, part: Step, workflow: Workflow, layers: int) -> int:
        system = self.space.system
        plan = ParallelPlan(tp=shape.tp, cp=shape.cp, unused=system.alive[shape.tp * shape.cp :])
        model = replace(self.space.model, num_layers=layers)
        _, script = scripted(model, system, part, plan, workflow)
        timed = Timer(_ENGINE, check=self.check).timed(script)
        return system_engine_named(_ENGINE)(timed.program, timed.pass_cycles).makespan_cycles

    def _handing_over(self, part: Step) -> int:
        """Cycles that the stream of a part takes from one array to the next."""
        system = self.space.system
        bits = system.arrays[0].dtypes.activation.bits
        num_bytes = ceil_div(part.num_rows * self.space.model.hidden_size * bits, 8)
        moved = link_ops.messages(system, ((system.alive[0], system.alive[1], num_bytes),), "stream")
        return moved.cycles if moved is not None else 0
