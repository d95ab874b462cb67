"""A script as a program: how long every pass takes alone, and what every meeting moves over the links."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from pe_sim.config.systems.system import SystemConfig
from pe_sim.engine.engines import engine_named
from pe_sim.graph.shares import Meeting
from pe_sim.report.system.metrics import PassWork
from pe_sim.schedule import link_ops
from pe_sim.schedule.lowering import lower
from pe_sim.schedule.system import ArrayPass, LinkOperation, LinkTask, SystemProgram, Task
from pe_sim.systems.passes import LocalPass
from pe_sim.systems.script import CHOICES, TOKENS, Action, MeetingAction, PassAction, Script
from pe_sim.units import ceil_div

_LAYERS = re.compile(r"\blayers? [\d-]+")
_ArrayPart = tuple[int, int]  # an array, and the part that it works on
TOKEN_BITS = 32  # int32
CANDIDATE_BITS = 64  # fp32 value and int32 index


@dataclass(frozen=True, eq=False, slots=True)
class TimedScript:
    """A script with its program.

    Args:
        works: distinct passes; tasks of the program name them by index.
        program: tasks, in the order of the script's actions that take time.
        action_of: (tasks,) index of the action of each.
    """

    script: Script
    works: tuple[PassWork, ...]
    program: SystemProgram
    action_of: tuple[int, ...]

    @property
    def pass_cycles(self) -> tuple[int, ...]:
        """(works,) cycles of each alone."""
        return tuple(work.trace.makespan_cycles for work in self.works)


@dataclass
class Timer:
    """Simulates passes alone, each distinct one once.

    Args:
        engine: by its name.
        progress: called with (passes done, of how many).
        check: called again and again; what it raises ends the simulation.
    """

    engine: str
    progress: Callable[[int, int], None] | None = None
    check: Callable[[], None] | None = None
    _known: dict[int, tuple[LocalPass, PassWork]] = field(default_factory=dict)

    def timed(self, script: Script) -> TimedScript:
        """The script with its program."""
        works, program, action_of = self.program(script.system, script.actions)
        return TimedScript(script, works, program, action_of)

    def program(
        self, system: SystemConfig, actions: Sequence[Action]
    ) -> tuple[tuple[PassWork, ...], SystemProgram, tuple[int, ...]]:
        """Distinct passes of some actions, the program of these, and the action of each of its tasks."""
        passes = [action.run.does for action in actions if isinstance(action, PassAction)]
        distinct = list({id(does): does for does in passes}.values())
        works: list[PassWork] = []
        for does in distinct:
            if self.progress:
                self.progress(len(works), len(distinct))
            works.append(self.pass_of(does))
        index = {id(does): at for at, does in enumerate(distinct)}
        program, action_of = _Writer(system, index).write(actions)
        return tuple(works), program, action_of

    def pass_of(self, does: LocalPass) -> PassWork:
        """The schedule and trace of a pass alone; the pass is kept, so that no other has its identity."""
        if id(does) not in self._known:
            schedule = lower(does.work.placed)
            self._known[id(does)] = does, PassWork(schedule, engine_named(self.engine)(schedule, self.check))
        return self._known[id(does)][1]


@dataclass
class _Writer:
    system: SystemConfig
    work_of: Mapping[int, int]
    tasks: list[Task] = field(default_factory=list)
    action_of: list[int] = field(default_factory=list)
    operations: list[LinkOperation] = field(default_factory=list)
    indices: dict[int, int] = field(default_factory=dict)
    waits: dict[_ArrayPart, list[int]] = field(default_factory=dict)  # what its next pass or exchange waits for
    last: dict[_ArrayPart, int] = field(default_factory=dict)  # its latest pass

    def write(self, actions: Sequence[Action]) -> tuple[SystemProgram, tuple[int, ...]]:
        for at, action in enumerate(actions):
            if isinstance(action, PassAction):
                self._pass(at, action)
            else:
                self._meeting(at, action)
        return SystemProgram(self.system, tuple(self.tasks), tuple(self.operations)), tuple(self.action_of)

    def _pass(self, at: int, action: PassAction) -> None:
        key = (action.array, action.part)
        after = tuple(self.waits.pop(key, ()))
        self.last[key] = len(self.tasks)
        work = self.work_of[id(action.run.does)]
        label = in_the_model(action.run.label, action.first_layer)
        self._task(at, ArrayPass(action.array, work, after, label, action.pipeline, action.stage, action.part))

    def _meeting(self, at: int, action: MeetingAction) -> None:
        operation = operation_of(self.system, action)
        if operation is None:
            return
        sources = {move.source for move in action.moves} or set(action.members)
        targets = {move.target for move in action.moves} or set(action.members)
        after: dict[int, None] = {}
        for rank in sorted(sources):
            key = (rank, action.part)
            after |= dict.fromkeys(self.waits.get(key, ()))
            if key in self.last:
                after[self.last[key]] = None
        for rank in sorted(targets):
            self.waits.setdefault((rank, action.part), []).append(len(self.tasks))
        index = self.indices.setdefault(id(operation), len(self.operations))
        if index == len(self.operations):
            self.operations.append(operation)
        self._task(at, LinkTask(index, tuple(after), action.pipeline, action.stage, action.part))

    def _task(self, at: int, task: Task) -> None:
        self.tasks.append(task)
        self.action_of.append(at)


@lru_cache(maxsize=4096)  # the same few labels come again with every part and array
def in_the_model(label: str, first_layer: int) -> str:
    """A pass's label with layers counted in the model, where it has them counted from `first_layer` on."""

    def shifted(match: re.Match[str]) -> str:
        return re.sub(r"\d+", lambda number: str(int(number[0]) + first_layer), match[0])

    return _LAYERS.sub(shifted, label)


def operation_of(system: SystemConfig, action: MeetingAction) -> LinkOperation | None:
    """What a meeting moves over the links; None if there is nothing to move."""
    dtypes = system.arrays[action.members[0]].dtypes
    activation, partial = dtypes.activation.bits, dtypes.partial.bits
    counts = [len(rows) for rows in action.rows]
    name = action.kind
    members = action.members

    def sizes(bits: int) -> list[int]:
        return [ceil_div(count * action.row_size * bits, 8) for count in counts]

    match action.kind:
        case Meeting.SUM:
            return link_ops.all_reduce(
                system, members, sizes(partial)[0], sizes(activation)[0], f"all-reduce {action.tensor}"
            )
        case Meeting.QUERIES:
            return link_ops.all_gather(system, members, tuple(sizes(activation)), f"all-gather {action.tensor}")
        case Meeting.ATTENTION:
            return link_ops.reduce_scatter(
                system, members, tuple(sizes(partial)), f"reduce-scatter {action.tensor}", softmax=True
            )
        case _ if action.kind == CHOICES:
            return link_ops.reduce_to(system, members, members[0], sizes(CANDIDATE_BITS)[0], name)
    bits = TOKEN_BITS if action.kind == TOKENS else activation
    moved = tuple(
        (move.source, move.target, ceil_div(len(move.rows) * action.row_size * bits, 8)) for move in action.moves
    )
    return link_ops.messages(system, moved, name)
