"""`pe-sim models | arrays | systems | workflows | situations`: what there is, with a line each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import click

_PARTS: Final = re.compile(r"[0-9]+|[^0-9]+")


@click.command()
def models() -> None:
    """Which models come with pe-sim, and how large are they?

    Sizes are elements, the context is in tokens.

    \b
    Example:
      pe-sim models
    """
    from pe_sim.config.files.loading import preset_names
    from pe_sim.config.models.load import describe_model, load_model

    _print_lines(describe_model(load_model(name)) for name in _in_order(preset_names("models")))


@click.command()
def arrays() -> None:
    """Which arrays come with pe-sim, and what are they made of?

    Latencies are cycles of the array's clock.

    \b
    Example:
      pe-sim arrays
    """
    from pe_sim.config.arrays.load import describe_array, load_array
    from pe_sim.config.files.loading import preset_names

    _print_lines(describe_array(load_array(name)) for name in _in_order(preset_names("arrays")))


@click.command()
def systems() -> None:
    """Which systems of several arrays come with pe-sim, and how are they joined?

    `pe-sim run` and `verify` take one as --arrays NAME. Latencies are cycles of the arrays' clock.

    \b
    Example:
      pe-sim systems
    """
    from pe_sim.config.systems.load import describe_system, list_systems, load_system

    _print_lines(describe_system(load_system(name)) for name in _in_order(list_systems()))


@click.command(short_help="Which named workflows are there, and what do they distribute how?")
def workflows() -> None:
    """Which named workflows are there, and how do they distribute the operators?

    `row`: the outputs of W in y = W x are sharded (Megatron: column parallel); `col`: its inputs are (row parallel).

    \b
    Example:
      pe-sim workflows
    """
    from pe_sim.mapping.workflow import AUTO, WORKFLOWS

    _print_lines(f"{workflow.name}: {workflow.summary}" for workflow in (*WORKFLOWS.values(), AUTO))


@click.command()
def situations() -> None:
    """Which situations are there to choose a mapping for: batches, lengths and phases?

    `pe-sim run`, `compare` and `search` take one as --situation NAME. Lengths are tokens a sequence.

    \b
    Example:
      pe-sim situations
    """
    from pe_sim.config.files.loading import preset_names
    from pe_sim.config.situations import describe_situation, load_situation

    _print_lines(describe_situation(load_situation(name)) for name in preset_names("situations"))


def _in_order(names: Iterable[str]) -> list[str]:
    """The names in alphabetical order, numbers in them by value: 64 before 256."""
    return sorted(names, key=lambda name: [part.zfill(9) if part.isdigit() else part for part in _PARTS.findall(name)])


def _print_lines(lines: Iterable[str]) -> None:
    """Prints `name: text` lines with the texts aligned."""
    pairs = [line.partition(": ")[::2] for line in lines]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, text in pairs:
        click.echo(f"{name:<{width}}  {text}")
