"""How long a plan would take, roughly: two short models on the arrays of one stage give what a layer adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pe_sim.config.plan import ParallelPlan
from pe_sim.config.step import Decode, Prefill, Step
from pe_sim.engine.system_engines import system_engine_named
from pe_sim.errors import InputError, OutOfMemoryError
from pe_sim.mapping.workflow import Workflow
from pe_sim.schedule import link_ops
from pe_sim.systems.parts import Part, parts_of
from pe_sim.systems.search_space import Shape, Space
from pe_sim.systems.search_workflows import Option, Workflows
from pe_sim.systems.simulation import scripted
from pe_sim.systems.timing import Timer
from pe_sim.units import ceil_div

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
        """About what a step takes; None where the workflow cannot do it. It knows no queues before links."""
        found = self._of_parts(shape, workflow)
        return None if found is None else found[0] + (len(self._parts(shape)) - 1) * found[1]

    def period(self, shape: Shape, workflow: Workflow) -> float | None:
        """About what `Tried.period_cycles` is."""
        found = self._of_parts(shape, workflow)
        if found is None:
            return None
        busy = len(self._parts(shape)) * found[1]
        return max(found[0], busy) if isinstance(self.space.step, Decode) else busy

    def _of_parts(self, shape: Shape, workflow: Workflow) -> tuple[float, float] | None:
        """A part's way through all stages, and its time in the longest of them."""
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
        return step_of_part(self.space.step, parts[len(parts) // 2])

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
        """What the stream of a part takes from one array to the next."""
        system = self.space.system
        bits = system.arrays[0].dtypes.activation.bits
        num_bytes = ceil_div(part.num_rows * self.space.model.hidden_size * bits, 8)
        moved = link_ops.messages(system, ((system.alive[0], system.alive[1], num_bytes),), "stream")
        return moved.cycles if moved is not None else 0


def step_of_part(step: Step, part: Part) -> Step:
    """A step of a part's rows alone."""
    context = [span.context_len for span in part.spans]
    if isinstance(step, Decode):
        return Decode(context_len=context)
    new = [span.new_len for span in part.spans]
    return Prefill(prompt_len=new, context_len=context, logits=step.logits, causal=step.causal)
