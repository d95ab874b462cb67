"""`pe-sim generate`: a prompt and its answer, under one mapping or under two with the switch between them."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final, TextIO

import click

from pe_sim.cli.options import (
    DEFAULT_WORKFLOW,
    array_option,
    json_option,
    read_overrides,
    simulation_options,
    split_names,
    whole_number,
)
from pe_sim.cli.outputs import Outputs, to_json
from pe_sim.cli.progress import current_progress
from pe_sim.errors import DOES_NOT_FIT, InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pe_sim.api import Generation
    from pe_sim.mapping_search.switch.pairs import BestSwitch

_DEFAULT_PROMPT: Final = "2048"
_DEFAULT_OUTPUT: Final = "256"
_BEST: Final = "best"  # of the ways to switch weights
_WIDTH: Final = 120  # of the table of pairs
_ALL: Final = "all"


@click.command(short_help="A prompt and its answer: time to the first token, time per token, total.")
@click.argument("model_name", metavar="MODEL")
@array_option
@click.option(
    "--workflow",
    metavar="W",
    help=f"Of the prefill, and of decoding if nothing else is said.  [default: {DEFAULT_WORKFLOW}]",
)
@click.option(
    "--decode-workflow", metavar="W", help="Of the decode steps; what switching the mapping takes is counted."
)
@click.option(
    "--pairs",
    metavar="W,W,...|all",
    help="Try every pair of these workflows, one for the prefill and one for decoding, with the switch between them;"
    " all: the named ones. `auto` among them stands for the best mapping of each phase.",
)
@click.option(
    "--switch-weights",
    type=click.Choice([_BEST, "reshard", "both"]),
    help="Between two workflows: reshard: move what another PE holds; both: keep both layouts; best: both where that"
    f" fits the memories.  [default: {_BEST}]",
)
@click.option(
    "--prompt",
    "prompt_len",
    metavar="S",
    default=_DEFAULT_PROMPT,
    show_default=True,
    callback=whole_number,
    help="Tokens of every prompt.",
)
@click.option(
    "--output",
    "output_len",
    metavar="T",
    default=_DEFAULT_OUTPUT,
    show_default=True,
    callback=whole_number,
    help="Tokens of every answer; the prefill gives the first one.",
)
@click.option("--batch", metavar="B", default="1", show_default=True, callback=whole_number, help="Sequences.")
@simulation_options
@json_option
def generate(
    model_name: str,
    array_name: str,
    workflow: str | None,
    decode_workflow: str | None,
    pairs: str | None,
    switch_weights: str | None,
    prompt_len: int,
    output_len: int,
    batch: int,
    overlap: int | None,
    settings: tuple[str, ...],
    ignore_keys: tuple[str, ...],
    engine: str,
    allow_overflow: bool,
    json_target: str | None,
) -> None:
    """A prompt and its answer: time to the first token, time per token, total.

    Every decode step is simulated with the context it has. A mapping that is best for the prefill may not be the best
    one for decoding; --decode-workflow and --pairs price the switch between two: weights resharded or kept twice, the
    KV cache relaid, with every byte over the bus.

    \b
    Examples:
      pe-sim generate llama-2-7b --array bus-tree-256 --prompt 2048 --output 256 --workflow megatron
      pe-sim generate llama-2-7b --workflow workflow-2 --decode-workflow workflow-1
      pe-sim generate llama-2-7b --prompt 512 --output 64 --pairs workflow-1,workflow-2,megatron,auto
    """
    outputs = Outputs({"--json": json_target})
    overrides = read_overrides(settings, overlap)
    _refuse_both(workflow, decode_workflow, pairs, allow_overflow=allow_overflow)
    if switch_weights is not None and decode_workflow is None and pairs is None:
        raise InputError(
            "there is no switch",
            source="--switch-weights",
            given=switch_weights,
            hint="name the mapping that is switched to with --decode-workflow, or several with --pairs",
        )

    from pe_sim import api

    model = api.load_model(model_name, overrides.model or None, ignore_keys=ignore_keys)
    array = api.load_array(array_name, overrides.array or None)
    lengths = prompt_len, output_len, batch
    made: Generation | BestSwitch
    tell = current_progress()
    if pairs is None:
        made = api.generate(
            model,
            array,
            *lengths,
            workflow or DEFAULT_WORKFLOW,
            engine,
            decode_workflow=decode_workflow,
            switch_weights=switch_weights or _BEST,
            allow_overflow=allow_overflow,
            progress=lambda done, of: tell("tokens of every answer", done, of),
        )
        shown = _lines(made)
    else:
        names = tuple(api.WORKFLOWS) if pairs == _ALL else split_names(pairs, "--pairs")
        done = count(1)
        made = api.best_switch(
            model,
            array,
            *lengths,
            names,
            engine,
            switch_weights=switch_weights or _BEST,
            progress=lambda _: tell("pairs of workflows", next(done), _num_pairs(names)),
        )
        shown = [str(made)]

    def show(stream: TextIO) -> None:
        from pe_sim.report.table import emit

        emit(shown, stream, width=_WIDTH)

    outputs.deliver(lambda: to_json(made.to_dict()), show)


def _refuse_both(workflow: str | None, decode: str | None, pairs: str | None, *, allow_overflow: bool) -> None:
    if pairs is None:
        return
    given = {"--workflow": workflow, "--decode-workflow": decode, "--allow-overflow": allow_overflow or None}
    for option, value in given.items():
        if value is not None:
            raise InputError(f"{option} and --pairs exclude each other", source=option, given=value)


def _num_pairs(names: tuple[str, ...]) -> int:
    """The number of pairs of workflows to try; `auto` stands for two workflows."""
    return (len(names) + names.count("auto")) ** 2


def _lines(made: Generation) -> list[RenderableType]:
    from pe_sim.report.table import make_table
    from pe_sim.units import format_seconds

    rows = [("time to the first token (TTFT)", f"{made.ttft_cycles:,}", format_seconds(made.ttft_seconds))]
    if made.switch:
        share = made.switch_cycles / made.total_cycles
        said = f"switch (weights {made.switch.weights}, KV cache {made.switch.kv_cache}; {share:.1%} of the total)"
        rows.append((said, f"{made.switch_cycles:,}", ""))
    if made.output_len > 1:
        rows.append(("time per token after it (TPOT)", f"{made.tpot_cycles:,.1f}", format_seconds(made.tpot_seconds)))
    rows.append(("total", f"{made.total_cycles:,}", format_seconds(made.total_seconds)))
    first, decoding = made.prefill, made.decode_workflow or made.prefill.workflow
    names = first.workflow.name if decoding == first.workflow else f"{first.workflow.name}, then {decoding.name}"
    head = f"{first.model.name} on {first.array.name}, {names}: {made.batch_size} x ({made.prompt_len:,} prompt +"
    return [
        make_table(f"{head} {made.output_len:,} output) tokens", "", "cycles", "time", rows=rows),
        f"{made.tokens_per_second:,.1f} output tokens/s; accuracy: {made.envelope.one_line()}",
        *([f"{DOES_NOT_FIT}: {made.shortage.problem}"] if made.shortage else []),
        *(f"note: {note}" for note in first.model.notes),
    ]
