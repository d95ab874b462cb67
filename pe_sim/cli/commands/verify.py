"""`pe-sim verify`: the numeric proof of a workflow."""

from __future__ import annotations

from typing import Any, Final, TextIO

import click

from pe_sim.cli.machines import PlanChoice, system_options
from pe_sim.cli.options import (
    array_option,
    ignore_key_option,
    json_option,
    model_set_option,
    read_overrides,
    workflow_option,
)
from pe_sim.cli.outputs import Outputs, to_json
from pe_sim.errors import InputError

NOT_PROVEN: Final = 1


@click.command()
@click.argument("model_name", metavar="MODEL")
@array_option
@system_options
@workflow_option
@click.option(
    "--weights",
    metavar="FILE",
    help="Safetensors of MODEL itself, in Hugging Face's names.  [default: a scaled-down random model]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of random weights and tokens.")
@model_set_option
@ignore_key_option
@json_option
@click.pass_context
def verify(
    context: click.Context,
    /,
    model_name: str,
    array_name: str,
    workflow: str,
    weights: str | None,
    seed: int,
    settings: tuple[str, ...],
    ignore_keys: tuple[str, ...],
    json_target: str | None,
    **others: Any,
) -> None:
    """Does this workflow, distributed over this array, compute the model?

    The placed graph that `pe-sim run` times is executed on real numbers, every PE holding only its shards, and compared
    with the unsharded model: a scaled-down random one of MODEL's family unless --weights are given. The traffic that
    was really moved is compared with the simulated one. When the proof fails it says which operator departs first,
    and the exit code is 1.

    \b
    Examples:
      pe-sim verify llama-2-7b --array bus-tree-64 --workflow workflow-2
      pe-sim verify llama-3-8b --array bus-tree-64 --workflow mine.yaml --set num_pes=24
      pe-sim verify llama-3-8b --arrays ring-of-4-bus-tree-1024 --tp 2 --pp 2 --set array.num_pes=16
    """
    plans = PlanChoice.taken(others)
    outputs = Outputs({"--json": json_target})
    overrides = read_overrides(settings)
    machine, plan = plans.load(array_name, overrides)
    if plans.arrays is not None and plan is None:
        raise InputError("a proof on several arrays needs a plan", source="--plan", hint="--plan FILE, or --tp 2")

    from pe_sim import api

    model = api.load_model(model_name, overrides.model or None, ignore_keys=ignore_keys)
    proof = api.verify(model, machine, workflow, plan=plan, weights=weights, seed=seed)

    def show(stream: TextIO) -> None:
        click.echo(str(proof), file=stream)

    outputs.deliver(lambda: to_json(proof.to_dict()), show, {})
    if not proof.holds:
        context.exit(NOT_PROVEN)
