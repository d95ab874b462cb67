"""`pe-sim sweep`: many points from one YAML file, one row each."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Final, TextIO

import click

from pe_sim.cli.options import json_option, whole_number
from pe_sim.cli.outputs import Outputs, to_json
from pe_sim.cli.progress import Progress, current_progress
from pe_sim.errors import InputError

if TYPE_CHECKING:
    from pe_sim.studies.sweep import Progress as SweepProgress
    from pe_sim.studies.sweep import SweepResult

_ERRORS_SHOWN: Final = 5


@click.command(short_help="Many points from one YAML file: a table with a row for each.")
@click.argument("sweep_file", metavar="SWEEP.yaml")
@click.option(
    "--out", metavar="DIR", required=True, help="The folder for the table, the configs and the rows on their way."
)
@click.option(
    "--jobs", metavar="J", callback=whole_number, help="Processes on this machine.  [default: one a usable core]"
)
@click.option(
    "--backend",
    metavar="process|dask",
    default="process",
    show_default=True,
    help="process: on this machine; dask: on a Dask cluster (pip install 'pe-sim[dask]').",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Of the Dask cluster, for instance tcp://node1:8786.  [default: a cluster of J workers on this machine]",
)
@click.option("--resume", is_flag=True, help="Go on with what DIR holds, and compute no point of it again.")
@click.option("--yes", is_flag=True, help="Also more than 1,000,000 points.")
@json_option
def sweep(
    sweep_file: str,
    out: str,
    jobs: int | None,
    backend: str,
    scheduler: str | None,
    resume: bool,
    yes: bool,
    json_target: str | None,
) -> None:
    """Simulate many points, and write a table with a row for each.

    SWEEP.yaml gives a `base` that all points share, and over it a `grid` (lists or ranges by dotted path: every
    combination is a point), a list of `points`, or both. A dotted path is what --set takes (num_pes,
    network.bus.bytes_per_cycle, model.num_layers), or model, array, workflow, situation, phase, batch, context, prompt,
    logits, causal, engine, allow_overflow.

    \b
      base: {model: llama-2-7b, array: bus-tree-256, context: 2048}
      grid:
        workflow: [workflow-1, workflow-2, megatron]
        num_pes: {from: 64, to: 1024, times: 2}      # or step: 64, or num: 5

    DIR/results.parquet is the table, in the order of the points, DIR/configs.parquet the resolved config of every row
    by its key. A point that fails is a row with its error. Rows are kept as they are done: after Ctrl-C, a kill or a
    power cut the same command with --resume goes on. docs/sweeps.md explains the columns, and how to use a cluster.

    \b
    Examples:
      pe-sim sweep bus-width.yaml --out results/bus-width
      pe-sim sweep bus-width.yaml --out results/bus-width --resume --jobs 8
      pe-sim sweep bus-width.yaml --out results/bus-width --backend dask --scheduler tcp://node1:8786
    """
    outputs = Outputs({"--json": json_target})
    if not out:
        raise InputError("not a folder", source="--out", given=out, expected="the path of a folder")

    from pe_sim.studies.sweep import sweep as run_sweep

    progress = _Speed(current_progress())
    try:
        result = run_sweep(
            sweep_file,
            out,
            jobs=jobs,
            backend=backend,
            scheduler=scheduler,
            resume=resume,
            yes=yes,
            progress=progress,
        )
    except KeyboardInterrupt:
        _tell_how_to_go_on(progress, out)
        raise
    outputs.deliver(lambda: to_json(result.to_dict()), lambda stream: _print(result, stream))


def _print(result: SweepResult, stream: TextIO) -> None:
    stream.write(f"{result}\n")
    for error, count in result.errors[:_ERRORS_SHOWN]:
        stream.write(f"  {count:,} x {error}\n")
    if len(result.errors) > _ERRORS_SHOWN:
        stream.write(f"  and {len(result.errors) - _ERRORS_SHOWN:,} other errors; the column `error` has them all\n")
    for path in result.set_aside:
        stream.write(f"could not be read, and its points were computed again: {path}\n")
    stream.write(f"table: {result.path}\n")


def _tell_how_to_go_on(progress: _Speed, out: str) -> None:
    words = [word for word in sys.argv[1:] if word != "--resume"]
    done, total = progress.done, progress.total
    click.echo(f"interrupted: {done:,} of {total:,} points are done and kept in {out}; to go on:", err=True)
    click.echo(f"  pe-sim {shlex.join([*words, '--resume'])}", err=True)


class _Speed:
    """Passes on the progress of a sweep, with its rate and the number of failed points."""

    def __init__(self, tell: Progress) -> None:
        self._tell = tell
        self._begun = time.monotonic()
        self._at_start: int | None = None
        self.done = self.total = 0

    def __call__(self, news: SweepProgress) -> None:
        """Takes news of the sweep and passes it on."""
        self.done, self.total = news.done, news.total
        failed = f"{news.failed:,} failed" if news.failed else ""
        notes = ", ".join(part for part in (self._speed(news), failed, news.note) if part)
        self._tell(f"points ({notes})" if notes else "points", self.done, self.total)

    def _speed(self, news: SweepProgress) -> str:
        """Points per second since the first news of work, without points that were there already, as text."""
        if self._at_start is None and (news.done or not news.note):
            self._at_start, self._begun = news.done, time.monotonic()
        rate = (news.done - (self._at_start or 0)) / max(time.monotonic() - self._begun, 1e-3)
        return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s" if rate else ""
