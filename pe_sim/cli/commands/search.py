"""`pe-sim search`: the best distribution of every operator, and on several arrays the best plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO, TypeVar

import click

from pe_sim.cli.faults import INTERRUPTED as INTERRUPTED_CODE
from pe_sim.cli.machines import DEGREES, PlanChoice, check_arrays
from pe_sim.cli.options import (
    StepChoice,
    add_options,
    array_option,
    html_option,
    ignore_key_option,
    json_option,
    model_set_option,
    overlap_option,
    read_overrides,
    refuse_given,
    step_options,
)
from pe_sim.cli.outputs import Outputs, Writer, to_json
from pe_sim.cli.progress import current_progress
from pe_sim.cli.situations import refuse_files
from pe_sim.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pe_sim.mapping_search.candidates import Candidate
    from pe_sim.mapping_search.result import SearchResult
    from pe_sim.systems.search.result import SystemSearchResult, Tried


# ---- `pe-sim search` on several arrays: its options, and the search of plans and workflows.


_Command = TypeVar("_Command", bound=Callable[..., Any])
_WIDTH: Final = 150
_REASONS: Final = 8  # reasons of refused plans that are shown


def _numbers(_: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...]:
    """The whole numbers (from 1 on) of a comma list."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and 0 < int(part) < 2**31 for part in parts):
        raise InputError(
            "not degrees",
            source=f"--{option.name}",
            given=text,
            expected="whole numbers from 1 on with commas between, for instance 1,2,8",
        )
    return tuple(int(part) for part in parts)


def _seconds(_: click.Context, __: click.Parameter, text: str) -> float:
    """The seconds that were typed: a number above 0, or inf."""
    match = re.fullmatch(r"(\d{1,15}(\.\d*)?|\.\d+|inf)", text.strip().lower(), re.ASCII)
    seconds = float(match[1]) if match else 0.0
    if not seconds > 0:
        raise InputError(
            "this is no time for a search",
            source="--seconds",
            given=text,
            expected="seconds above 0, for instance 30 or 0.5; inf to search to the end",
        )
    return seconds


seconds_option: Final = click.option(
    "--seconds",
    metavar="S",
    callback=_seconds,
    default="30",
    show_default=True,
    help="Time for the search; then it gives the best so far, with its gap. inf: it goes on to its end.",
)

_SYSTEM_OPTIONS: Final = (
    click.option(
        "--arrays",
        metavar="SYSTEM",
        help="Search a plan for several arrays joined by links, in place of --array: a preset (see `pe-sim systems`)"
        " or a YAML file.",
    ),
    *(
        click.option(f"--{name}", metavar="N,M", callback=_numbers, help=f"Values of {name} that may be taken: {what}.")
        for name, what in zip(
            DEGREES,
            ("shares of the batch", "shares of the operators", "stages of layers", "shares of the tokens"),
            strict=True,
        )
    ),
    click.option("--plan-out", metavar="FILE.yaml", help="Write the best plan as a plan file.  [with --arrays]"),
)


def system_options(command: _Command) -> _Command:
    """Adds the options of a search on several arrays to a command."""
    return add_options(_SYSTEM_OPTIONS, command)


def _shown_plans(found: SystemSearchResult, top: int) -> list[RenderableType]:
    from pe_sim.report.table import make_table

    best = found.best
    parts: list[RenderableType] = [found.headline()]
    parts.append(
        f"{best.tokens_per_second:,.2f} tokens/s on {best.num_arrays} arrays; of their time {best.link_share:.1%} in"
        f" exchanges, {best.bubble_share:.1%} otherwise idle"
    )
    heads = ("arrays", "dp", "tp", "pp", "cp", "parts", "cut", "LM head", "cycles", "tokens/s", "links", "idle", "a PE")
    rows = [_row(one, marked=one is best) for one in found.tried[:top]]
    parts.append(make_table("The best plans", "workflow", *heads, rows=rows))
    if found.refused:
        parts.append("\nRefused:")
        counts: dict[str, int] = {}
        for one in found.refused:
            counts[one.reason] = counts.get(one.reason, 0) + 1
        most = sorted(counts.items(), key=lambda entry: -entry[1])
        parts += [f"  {reason}: {count:,} plan{'s' if count > 1 else ''}" for reason, count in most[:_REASONS]]
    return parts


def _row(one: Tried, *, marked: bool) -> tuple[str, ...]:
    from pe_sim.units import format_bytes

    plan = one.plan
    head = f"{plan.head.dp} x {plan.head.tp}" if plan.head else "-"
    return (
        one.label + (" *" if marked else ""),
        str(one.num_arrays),
        *(str(getattr(plan, name)) for name in DEGREES),
        str(plan.microbatches or 1),
        one.row()["partition"] if plan.pp > 1 else "-",
        head,
        f"{one.cycles:,}",
        f"{one.tokens_per_second:,.1f}",
        f"{one.link_share:.1%}",
        f"{one.bubble_share:.1%}",
        format_bytes(one.peak_bytes_per_pe),
    )


_SHOWN = 5
_EXPLAINED = 10  # differences
_EXPLANATION_WIDTH = 116  # of its table, which has eight columns


@click.command(short_help="Which distribution of every operator is the best, and how sure is that?")
@click.argument("model_name", metavar="MODEL")
@array_option
@system_options
@step_options
@overlap_option
@model_set_option
@ignore_key_option
@click.option(
    "--objective",
    metavar="latency|throughput|energy",
    default="latency",
    show_default=True,
    help="latency: fewest cycles; throughput: most tokens a second, which is the same mapping; energy: least"
    " dynamic energy, then fewest cycles.",
)
@click.option(
    "--workflow",
    metavar="FILE.yaml",
    default="auto",
    help="A workflow file with `base: auto`, which gives some operators; the others are searched.",
)
@click.option(
    "--simulations",
    type=click.IntRange(1),
    metavar="N",
    help="Mappings simulated at most, beside the named workflows; more of them prove more.  [default: 64; plans with"
    " --arrays: 16]",
)
@seconds_option
@click.option("--top", type=click.IntRange(1), default=_SHOWN, show_default=True, metavar="K", help="Candidates shown.")
@click.option(
    "--pareto", is_flag=True, help="Show the candidates that none beats in cycles, energy and memory at once."
)
@click.option(
    "--explain",
    "other",
    metavar="OTHER",
    help="Show why the best mapping is faster than this one, operator by operator: a named workflow or a YAML file.",
)
@click.option("--write", "written", metavar="FILE.yaml", help="Write the best mapping as a workflow file.")
@json_option
@html_option
def search(
    model_name: str,
    array_name: str,
    overlap: int | None,
    settings: tuple[str, ...],
    ignore_keys: tuple[str, ...],
    objective: str,
    workflow: str,
    simulations: int | None,
    seconds: float,
    top: int,
    pareto: bool,
    other: str | None,
    written: str | None,
    json_target: str | None,
    html_target: str | None,
    arrays: str | None,
    plan_out: str | None,
    **others: Any,
) -> None:
    """Which distribution of every operator is the best, and how sure is that?

    Every matrix by row, by column or whole, attention by head, by token or by batch, norms, adds and activations on all
    PEs, on slices or at the root, layer by layer, the batch in any number of groups of PEs: shortest paths over where
    the tensors are find the mappings that no other can beat by a lower bound, and these are simulated. "exact" means
    that nothing a workflow file can say is faster; otherwise the gap to the bound is told. The named workflows are
    always among the candidates. What does not fit the memories is left out.

    When the time is used up (--seconds), the best so far is given with its gap; so it is after Ctrl-C, and the exit
    code is 130 then.

    With --arrays the degrees of a plan are searched with it: shares of the batch, operators, layers and tokens. What
    promises most is simulated, and the gap to a bound for all plans is told.

    \b
    Examples:
      pe-sim search llama-2-7b --array bus-tree-1024 --context 2048
      pe-sim search llama-3-8b --array bus-tree-256 --phase prefill --prompt 512 --write best.yaml
      pe-sim search llama-2-7b --array bus-tree-256 --batch 4 --pareto --top 10
      pe-sim search llama-2-7b --array bus-tree-256 --explain megatron
      pe-sim search llama-2-70b --arrays ring-of-8-bus-tree-1024 --batch 8 --plan-out plan.yaml --write inside.yaml
    """
    degrees: dict[str, tuple[int, ...]] = {name: others.pop(name) for name in DEGREES}
    given = {f"--{name}": values for name, values in degrees.items() if values}
    check_arrays(arrays, given | ({} if plan_out is None else {"--plan-out": plan_out}))
    targets = {"--json": json_target, "--write": written, "--html": html_target, "--plan-out": plan_out}
    outputs = Outputs(targets)
    choice, several = StepChoice(**others), arrays is not None
    if several:
        refuse_given(
            {"--pareto": pareto, "--explain": other, "--html": html_target},
            "only a search on one array has this",
            "leave it out, or search for one array (--array)",
        )
        refuse_given(
            {"--situation": choice.situation},
            "a plan is searched for one step",
            "give the step itself: --phase, --batch, --context, --prompt",
        )
    overrides = read_overrides(settings, overlap, several=several)
    situation, steps = choice.load_situation(), choice.weighted_steps()
    if situation is not None:
        refuse_files(situation, {"--html": html_target})

    from pe_sim import api
    from pe_sim.mapping_search.result import INTERRUPTED, check_explained
    from pe_sim.report.table import WIDTH, emit

    model = api.load_model(model_name, overrides.model or None, ignore_keys=ignore_keys)
    machine, _ = PlanChoice(arrays).load(array_name, overrides)
    allowed: Any = None
    if several:
        from pe_sim.systems.search.space import Allowed

        allowed = Allowed(**degrees)
    if other is not None:
        check_explained(api.load_workflow(other))  # a wrong name is told before the search
    found: Any = api.search(
        model,
        machine,
        choice.build() if several else steps,
        objective,
        workflow=workflow,
        allowed=allowed,
        max_simulations=simulations,
        seconds=seconds,
        progress=current_progress(),
    )
    explanation = None if other is None else found.explain(other)
    writers: dict[str, Writer]
    if several:
        shown, width = _shown_plans(found, top), _WIDTH
        writers = {"--write": found.save_workflow, "--plan-out": found.save_plan}
    else:
        shown, width = _shown(found, top, pareto), WIDTH
        writers = {"--write": found.save, "--html": found.report.save_html}

    def make_json() -> str:
        told = {} if explanation is None else {"explanation": explanation.to_dict()}
        return to_json(found.to_dict(top) | told)

    def show(stream: TextIO) -> None:
        emit(shown, stream, width=width)
        if explanation is not None:
            emit(explanation.tables(_EXPLAINED), stream, width=_EXPLANATION_WIDTH)

    outputs.deliver(make_json, show, writers)
    if found.stopped == INTERRUPTED:  # as shells expect it after Ctrl-C, the results delivered all the same
        click.echo("interrupted: this is the best so far", err=True)
        raise SystemExit(INTERRUPTED_CODE)


def _shown(found: SearchResult, top: int, pareto: bool) -> list[RenderableType]:
    best = found.best
    ranked = sorted(found.candidates, key=lambda one: one.figure)
    named = next((one for one in ranked if one.is_named), None)
    parts: list[RenderableType] = [found.headline()]
    if named is not None and named.cycles > best.cycles:
        fewer = 1 - best.cycles / named.cycles
        parts.append(f"{fewer:.1%} fewer cycles than {named.name}, the best named workflow ({named.cycles:,.0f})")
    parts += [f"note: {note}" for note in found.report.model.notes]
    parts.append(_mapping_table(found))
    if pareto:
        parts.append(_candidates_table("Not beaten in cycles, energy and memory at once", found.pareto[:top]))
    else:
        shown = ranked[:top]
        if named is not None and named not in shown:
            shown.append(named)
        parts.append(_candidates_table("The best candidates", shown))
    if found.report.array.cost_basis_note:
        parts.append(f"note: {found.report.array.cost_basis_note}")
    if found.excluded:
        parts.append("\nNot candidates:")
        parts += [f"  {one.name}: {one.reason}" for one in found.excluded]
    return parts


def _mapping_table(found: SearchResult) -> RenderableType:
    """A table of every operator's distribution: a column for each run of layers with the same plan."""
    from pe_sim.mapping_search.result import runs_of
    from pe_sim.report.table import make_table

    workflow = found.workflow
    plans = [workflow.plan(layer) for layer in range(found.report.graph.num_layers)]
    runs = runs_of(plans)
    named = {operator.name for operator in found.report.graph.layer}
    has = {name: name in named for name in ("q", "k", "v", "o", "gate", "up", "down")}
    rows = [
        (name, *(plans[first].to_dict()[name] for first, _ in runs))
        for name in plans[0].to_dict()
        if has.get(name, True)
    ]
    heads = [f"layer {first}" if first == last else f"layers {first}-{last}" for first, last in runs]
    title = f"Distribution of every operator; lm_head {workflow.lm_head}, groups {workflow.groups}"
    return make_table(title, "operator", *heads, rows=rows)


def _candidates_table(title: str, candidates: Sequence[Candidate]) -> RenderableType:
    from pe_sim.report.table import make_table
    from pe_sim.units import format_bytes

    rows = [
        (
            one.name,
            f"{one.cycles:,.0f}",
            f"{one.tokens_per_second:,.2f}",
            f"{one.joules * 1e3:,.3f}",
            format_bytes(one.peak_bytes_per_pe),
        )
        for one in candidates
    ]
    return make_table(title, "mapping", "cycles", "tokens/s", "mJ", "peak a PE", rows=rows)
