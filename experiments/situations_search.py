"""Situations under every named workflow and under the searched mapping, on one array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pe_sim as ps
from experiments.situations_map import PIPELINE, WORKFLOWS, reason_of
from pe_sim import api
from pe_sim.config.array import ArrayConfig
from pe_sim.config.model import ModelConfig
from pe_sim.config.situations import Situation
from pe_sim.config.step import Step
from pe_sim.engine.fast import run_block_by_block
from pe_sim.engine.recurrences import OutOfOrderError
from pe_sim.errors import InputError
from pe_sim.mapping.footprint import footprint
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import Workflow
from pe_sim.schedule.lowering import lower

NAMED = tuple(name for name in WORKFLOWS if name != PIPELINE)
SIMULATIONS = 8  # in each search, beside the named workflows
TAKEN = 4  # the best mappings of each search that are tried on all steps
SEARCHED = "searched"


@dataclass(frozen=True, slots=True)
class Served:
    """A situation under one mapping.

    Args:
        workflow: a name, or SEARCHED.
        step_cycles: one a step of the situation; empty if it cannot serve it.
        reason: why it cannot.
        mapping: of the searched one, what it is.
    """

    model: str
    array: str
    situation: Situation
    workflow: str
    step_cycles: tuple[int, ...] = ()
    reason: str = ""
    mapping: str = ""

    @property
    def cycles(self) -> float:
        """Of all steps, each as often as it occurs."""
        return self.of_phase("prefill") + self.of_phase("decode")

    def of_phase(self, phase: str) -> float:
        """The same of one phase."""
        pairs = zip(self.situation.steps, self.step_cycles, strict=True)
        return sum(weight * cycles for (step, weight), cycles in pairs if step.phase == phase)


def serve_all(model_name: str, array_name: str, situation_name: str) -> list[Served]:
    """One situation under all mappings, the searched one last.

    A search over all steps of a situation, or with a batch, takes many minutes. So each phase is searched by itself for
    one sequence, and the best mappings found are tried on all steps, in any number of groups of PEs, beside the named
    ones. The one that takes least is the searched one.
    """
    model, array, situation = ps.load_model(model_name), ps.load_array(array_name), ps.load_situation(situation_name)
    situation.check_against(model)
    head = model.name, array.name, situation
    served: list[Served] = []
    for name in NAMED:
        try:
            served.append(Served(*head, name, simulated(model, array, situation, ps.load_workflow(name))))
        except InputError as error:
            served.append(Served(*head, name, reason=reason_of(error)))
    named = [each for each in served if each.step_cycles]
    found = [
        Served(*head, SEARCHED, cycles, mapping=in_words(workflow, model.num_layers))
        for workflow in searched(model, array, situation)
        if (cycles := _simulated_if_it_fits(model, array, situation, workflow))
    ]
    found += [Served(*head, SEARCHED, each.step_cycles, mapping=each.workflow) for each in named]
    if not found:
        return [*served, Served(*head, SEARCHED, reason=min(each.reason for each in served))]
    return [*served, min(found, key=lambda each: each.cycles)]


def searched(model: ModelConfig, array: ArrayConfig, situation: Situation) -> list[Workflow]:
    """The best mappings for each phase by itself, and with a batch in every number of groups."""
    best: dict[Workflow, None] = {}
    for step in dict.fromkeys(of_one_sequence(situation)):
        try:
            result = api.search(model, array, step, max_simulations=SIMULATIONS)
        except InputError:
            continue
        ranked = sorted(result.candidates, key=lambda one: one.figure)
        best |= dict.fromkeys([one.workflow for one in ranked if one.name not in api.WORKFLOWS][:TAKEN])
    groups = [2**power for power in range(situation.batch_sequences.bit_length()) if array.num_pes % 2**power == 0]
    return [replace(workflow, groups=count) for count in groups for workflow in best]


def of_one_sequence(situation: Situation) -> list[Step]:
    """The longest step of each phase; of a batch for its mean lengths, in decode also for as many rows as it has."""
    longest = {step.phase: step for step, _ in situation.steps}
    batch = situation.batch_sequences
    if batch == 1:
        return list(longest.values())
    found: list[Step] = []
    context = sum(situation.context_tokens) // batch
    prompt = sum(situation.prompt_tokens) // batch
    if "prefill" in longest:
        found.append(ps.Prefill(1, prompt_len=prompt, context_len=context))
    if "decode" in longest:
        context += prompt + max(situation.output_tokens) - 2
        rows = min(batch, context)
        found += [ps.Decode(1, context), ps.Prefill(1, prompt_len=rows, context_len=context - rows, logits="all")]
    return found


def simulated(model: ModelConfig, array: ArrayConfig, situation: Situation, workflow: Workflow) -> tuple[int, ...]:
    """The cycles of every step.

    Raises:
        InputError: it does not fit.
    """
    return tuple(ps.simulate(model, array, step, workflow).latency_cycles for step, _ in situation.steps)


def _simulated_if_it_fits(
    model: ModelConfig, array: ArrayConfig, situation: Situation, workflow: Workflow
) -> tuple[int, ...]:
    """The cycles; empty also where layers overtake each other, which takes up to minutes to simulate."""
    cycles = []
    try:
        for step, _ in situation.steps:
            placed = place(model, array, step, workflow)
            footprint(placed, placed.graph.shape).check()
            cycles.append(run_block_by_block(lower(placed)).makespan_cycles)
    except (InputError, OutOfOrderError):
        return ()
    return tuple(cycles)


def in_words(workflow: Workflow, num_layers: int) -> str:
    """What every layer of a mapping does, where it is the same in most layers that of the most."""
    plans = [workflow.plan(layer) for layer in range(num_layers)]
    usual = max(dict.fromkeys(plans), key=plans.count)
    ffn = usual.up if usual.gate in ("", usual.up) else f"{usual.gate}/{usual.up}"
    groups = f"{workflow.groups} groups: " if workflow.groups > 1 else ""
    qkv = "/".join(dict.fromkeys((usual.q, usual.k, usual.v)))
    said = f"{groups}qkv {qkv}, attention {usual.attention}, o {usual.o}, gate/up {ffn}, down {usual.down}"
    return said + ("" if plans.count(usual) == num_layers else f" ({plans.count(usual)} of {num_layers} layers)")


def best_named(served: Sequence[Served]) -> Served | None:
    """Of one situation on one array, the named workflow that takes least."""
    named = [each for each in served if each.workflow != SEARCHED and each.step_cycles]
    return min(named, key=lambda each: each.cycles) if named else None


def by_case(served: Sequence[Served]) -> Mapping[tuple[str, str, str], list[Served]]:
    """All mappings of each model, array and situation."""
    cases: dict[tuple[str, str, str], list[Served]] = {}
    for each in served:
        cases.setdefault((each.model, each.array, each.situation.name), []).append(each)
    return cases
