"""What does a searched mapping gain over the named workflows, for whole situations of prompts and answers?

The situations that come with pe-sim (`pe-sim situations`) under every named workflow and under the mapping that the
search finds for all of their steps together. The named workflows are candidates of the search, so that it is never
slower than the best of them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

import pe_sim as ps
from experiments.options import names
from experiments.parallel import in_order
from experiments.situations import ARRAYS, MODELS, SITUATIONS
from experiments.situations_map import WORKFLOWS as NAMED
from experiments.situations_map import reason_of
from experiments.situations_search_plot import figures
from experiments.situations_search_table import COLUMNS, SEARCHED, format_table
from experiments.study import Ask, Study, main
from pe_sim.config.situations import Situation
from pe_sim.errors import InputError
from pe_sim.mapping.workflow import Workflow

NAME: Final = "situations_search"
QUICK_MODELS, QUICK_ARRAYS, QUICK_SITUATIONS = MODELS[:1], ARRAYS[:1], SITUATIONS[:2]
SIMULATIONS = 16  # in each search, beside the named workflows


@dataclass(frozen=True, slots=True)
class Served:
    """A situation under one mapping.

    Args:
        workflow: a name, or SEARCHED.
        step_cycles: one a step of the situation; empty if it cannot serve it.
        reason: why it cannot.
        mapping: of the searched one, what it is.
        proof: of the searched one, how sure it is that nothing is better.
    """

    model: str
    array: str
    situation: Situation
    workflow: str
    step_cycles: tuple[int, ...] = ()
    reason: str = ""
    mapping: str = ""
    proof: str = ""

    @property
    def cycles(self) -> float:
        """Of all steps, each as often as it occurs."""
        return self.of_phase("prefill") + self.of_phase("decode")

    def of_phase(self, phase: str) -> float:
        """The same of one phase."""
        pairs = zip(self.situation.steps, self.step_cycles, strict=True)
        return math.fsum(weight * cycles for (step, weight), cycles in pairs if step.phase == phase)


def serve_all(model_name: str, array_name: str, situation_name: str) -> list[Served]:
    """One situation under all mappings, the searched one last: what `ps.search` finds for all of its steps together."""
    model, array, situation = ps.load_model(model_name), ps.load_array(array_name), ps.load_situation(situation_name)
    situation.check_against(model)
    head = model.name, array.name, situation
    try:
        found = ps.search(model, array, situation.steps, max_simulations=SIMULATIONS, seconds=math.inf)
    except InputError as error:
        reason = reason_of(error)
        return [Served(*head, name, reason=reason) for name in (*NAMED, SEARCHED)]
    cycles = {one.name: tuple(report.latency_cycles for report in one.reports) for one in found.candidates}
    reasons = {one.name: one.reason for one in found.excluded}
    served = [Served(*head, name, cycles.get(name, ()), reasons.get(name, "")) for name in NAMED]
    best = tuple(report.latency_cycles for report in found.reports)
    words = found.best.name if found.best.is_named else in_words(found.workflow, model.num_layers)
    return [*served, Served(*head, SEARCHED, best, mapping=words, proof=found.proof_in_words())]


def in_words(workflow: Workflow, num_layers: int) -> str:
    """What every layer of a mapping does, where it is the same in most layers that of the most."""
    plans = [workflow.plan(layer) for layer in range(num_layers)]
    usual = max(dict.fromkeys(plans), key=plans.count)
    ffn = usual.up if usual.gate in ("", usual.up) else f"{usual.gate}/{usual.up}"
    groups = f"{workflow.groups} groups: " if workflow.groups > 1 else ""
    qkv = "/".join(dict.fromkeys((usual.q, usual.k, usual.v)))
    said = f"{groups}qkv {qkv}, attention {usual.attention}, o {usual.o}, gate/up {ffn}, down {usual.down}"
    return said + ("" if plans.count(usual) == num_layers else f" ({plans.count(usual)} of {num_layers} layers)")


def rows_of(model_name: str, array_name: str, situation_name: str) -> list[dict[str, object]]:
    """The rows of the table for one situation."""
    served = serve_all(model_name, array_name, situation_name)
    found = round(served[-1].cycles) if served[-1].step_cycles else 0
    return [_row(each, found) for each in served]


def _row(served: Served, found_cycles: int) -> dict[str, object]:
    place = (served.model, served.array, served.situation.name, served.workflow)
    if not served.step_cycles:
        return dict(zip(COLUMNS, (*place, None, None, None, None, None, None, served.reason), strict=True))
    cycles = round(served.cycles)
    phases = (round(served.of_phase("prefill")), round(served.of_phase("decode")))
    gain = 1 - found_cycles / cycles
    words = (served.mapping or None, served.proof or None, None)
    return dict(zip(COLUMNS, (*place, *phases, cycles, gain, *words), strict=True))


def compute(ask: Ask) -> pd.DataFrame:
    """A row for each model, array, situation and mapping, the searched one last."""
    given = ask.options
    models = given.models or (QUICK_MODELS if ask.quick else MODELS)
    arrays = given.arrays or (QUICK_ARRAYS if ask.quick else ARRAYS)
    situations = given.situations or (QUICK_SITUATIONS if ask.quick else SITUATIONS)
    _check(models, arrays, situations)
    cases = [(model, array, name) for model in models for array in arrays for name in situations]
    tasks = {f"{model} on {array}, {name}": (model, array, name) for model, array, name in cases}
    rows = [row for found in in_order(rows_of, tasks, ask) for row in found]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _check(models: Sequence[str], arrays: Sequence[str], situations: Sequence[str]) -> None:
    """Raises InputError for what is not there, before a minute is spent on the rest."""
    for array in arrays:
        ps.load_array(array)
    for model_name in models:
        model = ps.load_model(model_name)
        for name in situations:
            ps.load_situation(name).check_against(model)


def options(parser: argparse.ArgumentParser) -> None:
    """Other models, arrays and situations."""
    parser.add_argument("--models", type=names, metavar="A,B", help=f"models ({','.join(MODELS)})")
    parser.add_argument("--arrays", type=names, metavar="A,B", help=f"arrays ({','.join(ARRAYS)})")
    parser.add_argument("--situations", type=names, metavar="A,B", help=f"what is served ({','.join(SITUATIONS)})")


STUDY: Final = Study(
    NAME,
    __doc__,
    f"""One mapping is searched for all steps of a situation together, with {SIMULATIONS} simulations beside the named
workflows. The table has what the mapping is, and how sure it is that nothing is better. All of it takes far longer than
the other experiments: a case takes seconds with one sequence on few PEs, and many minutes with a batch on many.

For instance:
  python -m experiments.situations_search --quick
  python -m experiments.situations_search --models llama-3.2-1b --arrays bus-tree-64 --situations one-short
  python -m experiments.situations_search --plot-only   (the picture anew, from the table)""",
    compute,
    format_table,
    figures,
    options,
)

if __name__ == "__main__":
    main(STUDY)
