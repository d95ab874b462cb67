"""The command `pe-sim`: takes the arguments, finds the subcommand, gives the exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from pe_sim._version import __version__
from pe_sim.cli.commands.calibrate import calibrate
from pe_sim.cli.commands.collective import collective, gemm
from pe_sim.cli.commands.compare import compare
from pe_sim.cli.commands.generate import generate
from pe_sim.cli.commands.listings import arrays, models, situations, systems, workflows
from pe_sim.cli.commands.run import run
from pe_sim.cli.commands.search import search
from pe_sim.cli.commands.sensitivity import sensitivity
from pe_sim.cli.commands.sweep import sweep
from pe_sim.cli.commands.topology import topology
from pe_sim.cli.commands.verify import verify
from pe_sim.cli.faults import exit_code_of
from pe_sim.cli.progress import Progress
from pe_sim.errors import did_you_mean

_COMMANDS: Final = (
    run,
    generate,
    compare,
    search,
    sweep,
    sensitivity,
    calibrate,
    collective,
    gemm,
    verify,
    topology,
    models,
    arrays,
    systems,
    workflows,
    situations,
)


class PeSimGroup(click.Group):
    """A click group with pe-sim's exit codes, which suggests the nearest command for an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` start with; raises a usage error with a suggestion if there is none."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"No such command {name!r}: {did_you_mean(name, self.commands)}", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands in the order they were added."""
        return list(self.commands)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs the group as click does, but errors become messages and exit codes in one place, `faults`."""

        def parse_and_run() -> Any:
            extra["windows_expand_args"] = windows_expand_args
            try:
                return super(PeSimGroup, self).main(args, prog_name, complete_var, standalone_mode=False, **extra)
            except SystemExit as end:
                if end.code == 1:  # click's own way to end when the reader of a pipe has left
                    raise BrokenPipeError from end
                raise

        return sys.exit(exit_code_of(parse_and_run)) if standalone_mode else parse_and_run()


@click.group(
    cls=PeSimGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Every command explains itself: pe-sim run --help. Exit codes: 0 done, 2 the input is wrong, 1 a fault of"
    " pe-sim, 130 ended by Ctrl-C.",
)
@click.version_option(__version__, prog_name="pe-sim", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, /) -> None:
    """Simulate large language models on an array of PEs with a broadcast bus and a reduction tree.

    Cycle-approximate: the documentation says what is modelled and what is not.

    \b
    A first look:
      pe-sim run llama-2-7b --array bus-tree-256 --workflow workflow-1 --phase decode --context 2048
      pe-sim compare llama-2-7b --array bus-tree-256
      pe-sim run llama-3.1-405b --arrays ring-of-8-bus-tree-1024 --tp 8 --workflow megatron
    """
    context.obj = context.with_resource(Progress(f"pe-sim {context.invoked_subcommand}"))


for _command in _COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """The entry point of the console script."""
    cli.main(prog_name="pe-sim")
