"""Results of `--situation`: takes a situation and its steps' reports, gives a table and JSON of the whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

from pe_sim.cli.outputs import format_pairs, format_table
from pe_sim.cli.progress import current_progress
from pe_sim.errors import DOES_NOT_FIT, InfeasibleError, InputError, worst
from pe_sim.units import format_seconds

if TYPE_CHECKING:
    from pe_sim.api import Report, Workflow
    from pe_sim.config.arrays.array import ArrayConfig
    from pe_sim.config.models.model import ModelConfig
    from pe_sim.config.situations import Situation, WeightedStep
    from pe_sim.config.step import Step

SCHEMA: Final = "pe-sim.situation/1"
COMPARISON_SCHEMA: Final = "pe-sim.situation-comparison/1"


@dataclass(frozen=True, slots=True)
class Served:
    """A situation under one mapping, with a report for each of its steps, in order."""

    situation: Situation
    reports: tuple[Report, ...]

    @property
    def cycles(self) -> float:
        """Cycles of the whole situation: the sum over its steps, each as often as it occurs."""
        pairs = zip(self.situation.steps, self.reports, strict=True)
        return math.fsum(weight * report.latency_cycles for (_, weight), report in pairs)

    @property
    def seconds(self) -> float:
        """Seconds of the whole situation, at the array's clock."""
        return self.cycles / (self.reports[0].array.clock_ghz * 1e9)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the answers per second of the whole situation."""
        return self.situation.counted_tokens / self.seconds

    @property
    def shortage(self) -> InfeasibleError | None:
        """The largest shortage of memory of any step, as an error; None if all steps fit."""
        return worst(report.shortage for report in self.reports)

    def to_dict(self) -> dict[str, Any]:
        """The situation's results as a JSON-ready dict."""
        pairs = zip(self.situation.steps, self.reports, strict=True)
        return {
            "schema": SCHEMA,
            "situation": self.situation.to_dict(),
            **({"does_not_fit": self.shortage.to_dict()} if self.shortage else {}),
            "latency": {"cycles": self.cycles, "seconds": self.seconds},
            "throughput": {"tokens_per_second": self.tokens_per_second},
            "steps": [{"weight": weight, "report": report.to_dict()} for (_, weight), report in pairs],
        }


def simulate_all(
    model: ModelConfig,
    array: ArrayConfig,
    steps: Sequence[WeightedStep],
    workflow: Workflow,
    engine: str,
    *,
    allow_overflow: bool,
) -> tuple[Report, ...]:
    """The reports of all steps under one mapping; if it is searched, it is searched for all steps together.

    Raises:
        InputError: as `pe_sim.simulate` raises it.
    """
    from pe_sim import api

    if workflow.searched:
        found = api.search(model, array, steps, workflow=workflow, progress=current_progress())
        workflow = found.uninterrupted.workflow
    return tuple(api.simulate(model, array, step, workflow, engine, allow_overflow=allow_overflow) for step, _ in steps)


def step_title(situation: Situation, index: int) -> str:
    """The title of a step, to stand above its tables."""
    step, weight = situation.steps[index]
    often = "once" if weight == 1 else f"{weight:g} times"
    return f"Step {index + 1} of {len(situation.steps)}, counted {often}: {in_options(step)}"


def in_options(step: Step) -> str:
    """The options of `pe-sim run` that describe this step."""
    lengths = {"context": step.context_len, "prompt": getattr(step, "prompt_len", ())}
    said = [f"--phase {step.phase}", f"--batch {step.batch_size}"]
    for name, each in lengths.items():
        values = each[:1] if len(set(each)) == 1 else each
        if values and (name != "context" or step.phase == "decode" or any(values)):
            said.append(f"--{name} {','.join(map(str, values))}")
    return " ".join(said)


def refuse_files(situation: Situation, files: Mapping[str, str | None]) -> None:
    """Raises if a file that holds a single step is asked for and the situation has several.

    Raises:
        InputError: such a file is asked for.
    """
    option = next((option for option, target in files.items() if target is not None), None)
    if option is not None and len(situation.steps) > 1:
        steps = ", or ".join(in_options(step) for step, _ in situation.steps)
        raise InputError(
            f"this file holds one step, and the situation {situation.name} has {len(situation.steps)}",
            source=option,
            given=files[option],
            hint=f"take one of its steps in place of --situation: {steps}",
        )


def print_served(served: Served, stream: TextIO) -> None:
    """Prints the report of every step, then the results of the whole situation."""
    from pe_sim.report.table import print_report

    for index, report in enumerate(served.reports):
        stream.write(f"{step_title(served.situation, index)}\n\n")
        print_report(report, stream)
        stream.write("\n")
    report = served.reports[0]
    pairs = [
        ("situation", f"{served.situation.name}: {served.situation.description}"),
        ("workflow", report.workflow.name),
        *([(DOES_NOT_FIT, served.shortage.problem)] if served.shortage else []),
        ("latency", f"{served.cycles:,.0f} cycles = {format_seconds(served.seconds)}, all steps"),
        ("throughput", f"{served.tokens_per_second:,.2f} tokens/s of the answers"),
    ]
    stream.write(f"The whole situation\n\n{format_pairs(pairs)}")


def comparison_text(served: Mapping[str, Served], unequal: Mapping[str, str]) -> str:
    """A table with a line for each workflow, the best marked: cycles of each step, and of the whole situation."""
    best = best_of(served, unequal)
    first = served[best]
    situation = first.situation
    steps = [f"step {index + 1}" for index in range(len(situation.steps))]
    weights = [f"x {weight:g}" for _, weight in situation.steps]
    rows = []
    for label, each in served.items():
        cycles = [f"{report.latency_cycles:,}" for report in each.reports]
        mark = "* " if label == best else ""
        aside = _aside(each, label in unequal) > _aside(first, best in unequal)
        over = "-" if aside else f"{each.seconds / first.seconds:.3f}"
        name = (
            f"{mark}{label}{f' ({DOES_NOT_FIT})' if each.shortage else ''}{' (NOT EQUAL)' if label in unequal else ''}"
        )
        rows.append([name, *cycles, f"{each.cycles:,.0f}", over, f"{each.tokens_per_second:,.2f}"])
    table = format_table(
        ["workflow", *steps, "all steps", "x best", "tokens/s"], ["cycles", *weights, "cycles", "", ""], rows
    )
    report = first.reports[0]
    names = {each.reports[0].array.name for each in served.values()}
    where = report.array.name if len(names) == 1 else "several arrays"
    return f"{report.model.name} on {where}, {situation.name}: {situation.description}\n{table}"


def best_of(served: Mapping[str, Served], unequal: Mapping[str, str]) -> str:
    """The label with the least time (the first of equals), among those that fit and are equal if there are any."""
    return min(served, key=lambda label: (_aside(served[label], label in unequal), served[label].seconds))


def _aside(served: Served, unequal: bool) -> int:
    """The number of reasons not to rank it: 0, 1 or 2."""
    return bool(served.shortage) + unequal


def comparison_dict(
    served: Mapping[str, Served], failed: Sequence[Mapping[str, str]], unequal: Mapping[str, str]
) -> dict[str, Any]:
    """The comparison as a JSON-ready dict."""
    return {
        "schema": COMPARISON_SCHEMA,
        "best": best_of(served, unequal),
        "results": [{"workflow": label, **each.to_dict()} for label, each in served.items()],
        "failed": list(failed),
        **({"unequal": dict(unequal)} if unequal else {}),
    }
