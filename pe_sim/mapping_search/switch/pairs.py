"""The best pair of mappings for a generation, one for its prefill and one for its decode: takes candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.networks.network import GraphNetwork
from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.engines import DEFAULT_ENGINE, decode_in_order, engine_named
from pe_sim.errors import InfeasibleError, InputError
from pe_sim.mapping.footprint import footprint
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import Workflow
from pe_sim.mapping_search.switch.price import BEST, KEPT, Known, Side, check_weights, price_switch
from pe_sim.notebook import Table, card
from pe_sim.report.results import Switch
from pe_sim.schedule.lowering import lower

SCHEMA: Final = "pe-sim.switch-pairs/1"
_HEADING = f"{'prefill':<16}{'decode':<16}{'prefill':>15}{'switch':>14}{'decode':>15}{'total':>15}  weights, KV cache"


@dataclass(frozen=True, slots=True)
class Pair:
    """A generation under one mapping for the prefill and one for the decode steps.

    Args:
        prefill, decode: the two workflows.
        prefill_cycles, decode_cycles: of the prefill, and of all decode steps together; 0 where it does not fit.
        switch: what is between them; None where both are one workflow, or where it does not fit.
        problem: why it does not fit; empty where it does.
    """

    prefill: Workflow
    decode: Workflow
    prefill_cycles: int
    decode_cycles: int
    switch: Switch | None = None
    problem: str = ""

    @property
    def switch_cycles(self) -> int:
        """Cycles of the switch; 0 where there is none."""
        return self.switch.cycles if self.switch else 0

    @property
    def total_cycles(self) -> int:
        """Cycles of the whole generation."""
        return self.prefill_cycles + self.switch_cycles + self.decode_cycles

    @property
    def cycles(self) -> tuple[int, int, int, int]:
        """Cycles of the prefill, of the switch, of decoding, and of all of it."""
        return self.prefill_cycles, self.switch_cycles, self.decode_cycles, self.total_cycles

    @property
    def switches(self) -> bool:
        """Whether two mappings take part."""
        return self.prefill != self.decode

    @property
    def moves(self) -> bool:
        """Whether the two mappings put weights or cache in different places."""
        return self.switch is not None and (self.switch.weights, self.switch.kv_cache) != (KEPT, KEPT)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        head = {"prefill": self.prefill.name, "decode": self.decode.name}
        if self.problem:
            return {**head, "problem": self.problem}
        return {
            **head,
            "prefill_cycles": self.prefill_cycles,
            "switch_cycles": self.switch_cycles,
            "decode_cycles": self.decode_cycles,
            "total_cycles": self.total_cycles,
            "switch": self.switch.to_dict() if self.switch else None,
        }

    def __str__(self) -> str:
        line = f"{self.prefill.name:<16}{self.decode.name:<16}"
        if self.problem:
            return f"{line}  {self.problem}"
        widths = (15, 14, 15, 15)
        line += "".join(f"{part:>{width},}" for part, width in zip(self.cycles, widths, strict=True))
        return f"{line}  {self.switch.weights}, {self.switch.kv_cache}" if self.switch else line


@dataclass(frozen=True, slots=True)
class BestSwitch:
    """All pairs of the candidates.

    Args:
        table: every pair, the fastest first, those that do not fit last.
    """

    table: tuple[Pair, ...]

    @property
    def best(self) -> Pair:
        """The fastest pair; on a tie one without a switch."""
        return self.table[0]

    @property
    def best_without(self) -> Pair | None:
        """The fastest pair without a switch; None where no candidate fits both phases."""
        return next((pair for pair in self.table if not pair.switches and not pair.problem), None)

    @property
    def gained_cycles(self) -> int:
        """Cycles that the switch saves; 0 where it does not pay."""
        return self.best_without.total_cycles - self.best.total_cycles if self.best_without else 0

    @property
    def verdict(self) -> str:
        """Whether a switch pays, in a sentence."""
        best, alone = self.best, self.best_without
        if not best.switches:
            rival = next((pair for pair in self.table if pair.moves), None)
            if rival is None:
                return f"{best.prefill.name} for both phases: {self._why_alone}."
            more = rival.total_cycles / best.total_cycles - 1
            said = f"{rival.prefill.name} -> {rival.decode.name}, takes {more:.1%} more"
            return f"A switch does not pay: {best.prefill.name} for both phases; the best pair with one, {said}."
        named = f"{best.prefill.name} for the prefill, then {best.decode.name}"
        if alone is None:
            return f"{named}: no workflow fits both phases."
        gain = self.gained_cycles / alone.total_cycles
        return f"{named}: {gain:.1%} less than {alone.prefill.name} for both."

    @property
    def _why_alone(self) -> str:
        """Why no pair moves anything between its phases."""
        others = [pair for pair in self.table if pair.switches]
        if not others:
            return "there is no other to switch to"
        return (
            "no other pair fits" if all(pair.problem for pair in others) else "no pair that fits has to move anything"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "schema": SCHEMA,
            "best": self.best.to_dict(),
            "best_without_switch": self.best_without.to_dict() if self.best_without else None,
            "gained_cycles": self.gained_cycles,
            "verdict": self.verdict,
            "pairs": [pair.to_dict() for pair in self.table],
        }

    def __str__(self) -> str:
        """The pairs that fit, what was left out for which reason, and the verdict."""
        fitting = [str(pair) for pair in self.table if not pair.problem]
        reasons = Counter(pair.problem for pair in self.table if pair.problem)
        left_out = [f"left out, {count} pairs: {reason}" for reason, count in reasons.items()]
        return "\n".join([_HEADING, "-" * len(_HEADING), *fitting, *left_out, self.verdict])

    def _repr_html_(self) -> str:
        """The verdict and the pairs, as a notebook shows them, the fastest in bold."""
        heads = ("prefill", "decode", "prefill cycles", "switch cycles", "decode cycles", "total cycles")
        rows = [
            (pair.prefill.name, pair.decode.name, *(f"{cycles:,}" for cycles in pair.cycles))
            for pair in self.table
            if not pair.problem
        ]
        left_out = Counter(pair.problem for pair in self.table if pair.problem)
        notes = [f"Left out, {count} pairs: {reason}" for reason, count in left_out.items()]
        return card(self.verdict, tables=[Table(heads, rows, text_columns=2, marked=0, most=12)], notes=notes)


@dataclass(frozen=True, slots=True)
class Phases:
    """A generation's steps: the prefill, and the decode steps after it."""

    prefill: Prefill
    decodes: tuple[Decode, ...]

    @classmethod
    def of(cls, model: ModelConfig, prompt_len: int, output_len: int, batch_size: int) -> Phases:
        """The steps of a generation: the prefill gives the first token, each decode step one more.

        Raises:
            InputError: a length is not one positive int, or the last step has more tokens than the model positions.
        """
        if type(prompt_len) is not int:
            raise InputError("all prompts have one length", path="prompt_len", given=prompt_len, expected="an int >= 1")
        if type(output_len) is not int or output_len < 1:
            raise InputError(
                "a generation has at least one token", path="output_len", given=output_len, expected="an int >= 1"
            )
        first = Prefill(batch_size, prompt_len=prompt_len)
        first.check_against(model)
        if output_len > 1:
            Decode(batch_size, prompt_len + output_len - 2).check_against(model)
        return cls(first, tuple(Decode(batch_size, prompt_len + done) for done in range(output_len - 1)))

    @property
    def ends(self) -> tuple[Prefill | Decode, ...]:
        """The prefill and, if there is any, the last decode step."""
        return (self.prefill, *self.decodes[-1:])


@dataclass(frozen=True, slots=True)
class Ways:
    """How a switch is done; the fields are the arguments of `price_switch`.

    Raises:
        InputError: no such choice of weights.
    """

    weights: str = BEST
    engine: str = DEFAULT_ENGINE
    allow_overflow: bool = False

    def __post_init__(self) -> None:
        """Refuses a wrong choice before anything is simulated."""
        check_weights(self.weights)


def switch_between(
    model: ModelConfig,
    array: ArrayConfig,
    phases: Phases,
    before: Workflow,
    after: Workflow,
    ways: Ways | None = None,
    known: Known | None = None,
) -> Switch:
    """The cost of the switch in a generation; see `price_switch`."""
    ways = ways or Ways()
    prefill = place(model, array, phases.prefill, before)
    first, last = (place(model, array, phases.decodes[index], after) for index in (0, -1))
    sides = Side(before.name, prefill, prefill), Side(after.name, first, last)
    return price_switch(
        *sides, weights=ways.weights, engine=ways.engine, allow_overflow=ways.allow_overflow, known=known
    )


def best_pair(
    model: ModelConfig,
    array: ArrayConfig,
    phases: Phases,
    candidates: Sequence[Workflow],
    ways: Ways | None = None,
    progress: Callable[[str], None] | None = None,
) -> BestSwitch:
    """Every pair of the candidates, each with the switch between them.

    Args:
        candidates: workflows, named ones or what a search gave.
        progress: called with a line of the table whenever a pair is done.

    Raises:
        InputError: no candidates; InfeasibleError where no pair fits the memories.
    """
    ways = ways or Ways()
    if not candidates:
        raise InputError("there is nothing to choose from", path="candidates", given=[], expected="workflows")
    search = _Search(model, array, phases, ways)
    found: list[Pair] = []
    for before in dict.fromkeys(candidates):
        for after in dict.fromkeys(candidates):
            found.append(search.pair(before, after))
            if progress:
                progress(str(found[-1]))
    fitting = [pair for pair in found if not pair.problem]
    if not fitting:
        assert search.refusal is not None, "a pair is left out only where something does not fit"
        raise search.refusal
    fitting.sort(key=lambda pair: (pair.total_cycles, pair.switches))
    return BestSwitch((*fitting, *(pair for pair in found if pair.problem)))


@dataclass
class _Search:
    """Simulates pairs of workflows, each phase of each workflow once."""

    model: ModelConfig
    array: ArrayConfig
    phases: Phases
    ways: Ways

    def __post_init__(self) -> None:
        self._prefills: dict[Workflow, int] = {}
        self._decodes: dict[Workflow, int] = {}
        self._known: Known = {}
        self._problems: dict[tuple[Workflow, bool], str] = {}
        self.refusal: InfeasibleError | None = None

    def pair(self, before: Workflow, after: Workflow) -> Pair:
        problem = self._problem(before, decode=False) or self._problem(after, decode=True)
        if before != after and not problem and isinstance(self.array.network, GraphNetwork):
            problem = "switches are priced on a bus_tree"
        if problem:
            return Pair(before, after, 0, 0, None, problem)
        switch = None
        if before != after and self.phases.decodes:
            try:
                switch = switch_between(self.model, self.array, self.phases, before, after, self.ways, self._known)
            except InfeasibleError as error:
                return Pair(before, after, 0, 0, None, self._refused(error))
        return Pair(before, after, self._prefill(before), self._decode(after), switch)

    def _prefill(self, workflow: Workflow) -> int:
        if workflow not in self._prefills:
            placed = place(self.model, self.array, self.phases.prefill, workflow)
            self._prefills[workflow] = engine_named(self.ways.engine)(lower(placed)).makespan_cycles
        return self._prefills[workflow]

    def _decode(self, workflow: Workflow) -> int:
        if workflow not in self._decodes:
            steps = decode_in_order(self.model, self.array, self.phases.decodes, workflow, self.ways.engine)
            self._decodes[workflow] = sum(sum(cycles) for cycles, _ in steps)
        return self._decodes[workflow]

    def _problem(self, workflow: Workflow, *, decode: bool) -> str:
        """Why a phase does not fit the memories; empty where it does."""
        if decode and not self.phases.decodes:
            return ""
        key = (workflow, decode)
        if key not in self._problems:
            step = self.phases.decodes[-1] if decode else self.phases.prefill
            placed = place(self.model, self.array, step, workflow)
            try:
                footprint(placed, placed.graph.shape).check()
                self._problems[key] = ""
            except InfeasibleError as error:
                phase = "decode" if decode else "prefill"
                self._problems[key] = f"{phase} under {workflow.name}: {self._refused(error)}"
        return self._problems[key]

    def _refused(self, error: InfeasibleError) -> str:
        self.refusal = self.refusal or error
        return f"{error.problem.split(': needs')[0]}, {error.gap:,} {error.unit} too many"
