"""Which workflows a search tries inside the arrays: named ones, and those searched for an array's share of a step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Step
from pe_sim.config.systems.system import SystemConfig
from pe_sim.errors import InputError, OutOfMemoryError
from pe_sim.graph.shares import OperatorShare, model_share
from pe_sim.mapping.placed import Memo
from pe_sim.mapping.workflow import AUTO, WORKFLOWS, Workflow
from pe_sim.mapping_search.budget import Budget
from pe_sim.mapping_search.search import search_for
from pe_sim.systems.array_view import own_step
from pe_sim.units import ceil_div

NAMED: Final = ("megatron", "workflow-1", "workflow-2", "alternating", "all-row", "all-col")
_SIMULATIONS: Final = 2  # mappings simulated in the search of a share
_MOST_SEQUENCES: Final = 8  # sequences of a part in the search of a share: what is best for eight is good for more
_TIME_A_SHARE: Final = 0.25  # share of the time left that one search may take
_KNOWN: Final = Memo(32)


class _CutShortError(Exception):
    """Raised where a search of a share was stopped, so that its result is not remembered."""

    def __init__(self, best: tuple[Workflow, str]) -> None:
        super().__init__()
        self.best = best


@dataclass(frozen=True, slots=True)
class Option:
    """A workflow, and what people call it."""

    label: str
    workflow: Workflow


@dataclass
class Workflows:
    """The workflows of one search.

    Args:
        model, system: what is searched for.
        given: what the user asks for; if that is to be searched, so is a workflow for every share.
        names: named ones to try beside it.
        simulations: most mappings that are simulated on a system of one array.
        budget: the time for all searches.
        cut_short: whether one of them was stopped by it.
    """

    model: ModelConfig
    system: SystemConfig
    given: Workflow
    names: tuple[str, ...] = NAMED
    simulations: int = _SIMULATIONS
    budget: Budget = field(default_factory=Budget)
    cut_short: bool = False
    _searched: dict[tuple[int, Step, int], Option | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises InputError for a name that no workflow has."""
        for name in self.names:
            if name not in WORKFLOWS:
                raise InputError(
                    f"no workflow is called {name!r}",
                    path="workflows",
                    given=name,
                    expected=", ".join(WORKFLOWS),
                )

    def named(self) -> tuple[Option, ...]:
        """The workflows that need no search."""
        if not self.given.searched:
            return (Option(self.given.name, self.given),)
        if self.given != AUTO:
            return ()  # no named workflow keeps to what a file gives
        return tuple(Option(name, WORKFLOWS[name]) for name in self.names)

    @property
    def is_searched(self) -> bool:
        """Whether workflows are searched."""
        return self.given.searched

    @property
    def num_searched(self) -> int:
        """Number of searches so far."""
        return len(self._searched)

    def knows(self, tp: int, part: Step, stage_layers: int) -> bool:
        """Whether the search of a share has been done."""
        return (tp, self._few(part), stage_layers) in self._searched

    def of_share(self, tp: int, part: Step, stage_layers: int) -> Option | None:
        """The best workflow for an array that has one of `tp` shares of a part; None: there is none.

        The share of one array has no exchanges, and of the `stage_layers` alike layers that it holds one or two are
        searched, for a few of the sequences, with as much memory as is for them; on a system of one array it is the
        whole model and step.
        """
        key = tp, self._few(part), stage_layers
        if key not in self._searched:
            try:
                self._searched[key] = self._search(*key)
            except OutOfMemoryError:
                raise
            except InputError:
                self._searched[key] = None
        return self._searched[key]

    @property
    def _is_alone(self) -> bool:
        return len(self.system.alive) == 1

    def _few(self, part: Step) -> Step:
        if self._is_alone or part.batch_size <= _MOST_SEQUENCES:
            return part
        return own_step(part, [(span.new_len, span.context_len) for span in part.sequences[:_MOST_SEQUENCES]])

    def _search(self, tp: int, part: Step, stage_layers: int) -> Option:
        alone, layers = self._is_alone, self.model.num_layers
        array = self.system.arrays[self.system.alive[0]]
        if not alone and not self.given.rules:
            layers = min(layers, 2 if tp == 1 else 1)
            array = self._with_room(array, layers, max(layers, stage_layers))
        share = model_share(self.model, OperatorShare(0, tp), layers)
        asked = (share, array, part, self.given, self.simulations if alone else _SIMULATIONS, alone)
        time = self.budget.part(1.0 if alone else _TIME_A_SHARE)
        try:
            best, name = _KNOWN.recall(asked, _best_mapping, *asked, time)
        except _CutShortError as cut:
            best, name = cut.best
            self.cut_short = True
        except InputError:
            self.cut_short |= time.left_seconds <= 0
            raise
        rows = f"{part.num_rows:,} row{'s' if part.num_rows > 1 else ''}"
        label = self.given.name if alone else f"{self.given.name} (tp {tp}, {rows})"
        summary = f"searched for one of {tp} shares of {rows} ({name})"
        return Option(label, replace(best, name=self.given.name, summary=summary, source=self.given.name))

    def _with_room(self, array: ArrayConfig, layers: int, stage_layers: int) -> ArrayConfig:
        """The array with the part of its PEs' memories that is for so many of a stage's layers, and for an LM head."""
        memory = array.pe.memory
        head = ceil_div(self.model.vocab_size * self.model.hidden_size * array.dtypes.weight.bits, 8 * array.num_pes)
        rest = max(0, memory.capacity_bytes - head)
        room = min(memory.capacity_bytes, rest * layers // stage_layers + head)
        return replace(array, pe=replace(array.pe, memory=replace(memory, capacity_bytes=max(1, room))))


def _best_mapping(
    share: ModelConfig, array: ArrayConfig, part: Step, given: Workflow, simulations: int, alone: bool, budget: Budget
) -> tuple[Workflow, str]:
    """The best mapping of a share, and what the search calls it; `alone`: it may be a pipeline of PEs."""
    found = search_for(share, array, part, "latency", given, max_simulations=simulations, budget=budget).uninterrupted
    ranked = sorted(found.candidates, key=lambda one: one.figure)
    best = next((one for one in ranked if alone or not one.workflow.pipelined), None)
    if best is None:
        raise InputError("no mapping of a share works on whole layers")
    if found.stopped:
        raise _CutShortError((best.workflow, best.name))
    return best.workflow, best.name
