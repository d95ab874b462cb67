"""Which plans and workflows promise most: by lower bounds first, then by estimates, most of them for one workflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pe_sim.systems.search_estimate import Estimator
from pe_sim.systems.search_space import Refused, Shape, Space
from pe_sim.systems.search_workflows import Option, Workflows

_WORTH = 1.1  # bounds up to so many times the best estimate are looked at
_WITH_ALL = 8  # of the most promising shapes, how many are estimated under every workflow
_STAGES = 3  # sizes of a stage for which a workflow is searched, until one has room
_NO_MEANING = "the workflow cannot do this step, or has no meaning across arrays"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A shape and a workflow, and about what it takes."""

    shape: Shape
    option: Option
    estimate: float


@dataclass
class Order:
    """Puts what can be taken in order.

    Args:
        by_period: whether steps that follow one another are to take least, rather than one alone.
        few: so many candidates are not worth an estimate.
        tell: for progress.
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
    is_whole: bool = False  # all candidates are there
    shapes: list[Shape] = field(default_factory=list)
    found: list[Candidate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.estimator = Estimator(self.space, self.check)

    def so_far(self) -> list[Candidate]:
        """What was estimated, the best first; then all that can fit, by its bound, under every named workflow."""
        named = self.options.named()
        rest = (Candidate(shape, option, float(self._bound(shape))) for shape in self.shapes for option in named)
        return [*sorted(self.found, key=lambda one: one.estimate), *rest]

    def candidates(self, max_searches: int) -> list[Candidate]:
        """The best first.

        Args:
            max_searches: of workflows for shares.
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
        shapes, refused = self.space.shapes()
        self.refused += refused
        streams = any(option.workflow.stream_weights for option in self.options.named())
        found = []
        for shape in shapes:
            needed, capacity = self.space.least_bytes_per_pe(shape), self.space.capacity_bytes
            if needed <= capacity or streams:
                found.append(shape)
            elif shape.microbatches == 1:  # memory knows no parts
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
