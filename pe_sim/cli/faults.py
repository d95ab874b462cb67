"""Exit codes for exceptions: takes the call that does the work, gives 0, 1, 2 or 130 and one message."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import Final

import click

from pe_sim.errors import InputError, PeSimError

DONE: Final = 0
INTERNAL_FAULT: Final = 1
WRONG_INPUT: Final = 2
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
TRACEBACK_VARIABLE: Final = "PE_SIM_TRACEBACK"


def exit_code_of(call: Callable[[], object]) -> int:
    """The exit code of a command: calls `call`, and reports errors on standard error."""
    try:
        return _code_and_message(call)
    except BrokenPipeError:
        # The reader, `head` for instance, has seen enough.
        _silence(sys.stdout)
        _silence(sys.stderr)
        return DONE
    except OSError as error:
        _silence(sys.stdout)
        click.echo(f"error: standard output cannot be written: {error.strerror}", err=True)
        return INTERNAL_FAULT


def _code_and_message(call: Callable[[], object]) -> int:
    code = DONE
    try:
        result = call()
        code = result if isinstance(result, int) else DONE  # --help and --version end with click's own code
    except InputError as error:
        code = WRONG_INPUT
        click.echo(f"error: {error}", err=True)
    except click.ClickException as error:
        code = error.exit_code
        error.show()
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        reason = _machine_fault(error)
        if reason is not None:
            click.echo(f"error: {reason}", err=True)
            return WRONG_INPUT
        if isinstance(error, OSError) and error.filename is None:
            raise  # an error of a stream: errors of files are InputErrors by now
        code = INTERNAL_FAULT
        _tell_fault(error)
    if sys.stdout is not None:
        sys.stdout.flush()
    return code


def _machine_fault(error: Exception) -> str | None:
    """A message with advice if this machine refused memory, file handles or the working directory; else None."""
    # A library that cannot be loaded for want of file handles is an ImportError whose message alone says so.
    if isinstance(error, MemoryError):
        return (
            "this machine has not enough memory for it; fewer PEs (num_pes), layers (model.num_layers) or sequences,"
            " the fast engine, or fewer files beside the report (--trace, --html, --csv, --json) need less"
        )
    number = getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE) or os.strerror(errno.EMFILE) in str(error):
        return "too many open files; a higher limit (ulimit -n) lets pe-sim open what it needs"
    if number == errno.ENOENT and _is_here_gone():
        return "the folder you are in does not exist any more; change to one that does"
    return None


def _is_here_gone() -> bool:
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def _tell_fault(error: Exception) -> None:
    text = str(error) if isinstance(error, PeSimError) else f"{type(error).__name__}: {error}".rstrip(": ")
    click.echo(f"internal fault: {text}", err=True)
    if os.environ.get(TRACEBACK_VARIABLE) == "1":
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
        return
    click.echo(f"  This is a fault of pe-sim, not of the input; {TRACEBACK_VARIABLE}=1 shows where it is.", err=True)


def _silence(stream: object) -> None:
    """Sends a stream's buffered output to nowhere, so that the interpreter does not fail on it at exit."""
    try:
        descriptor = stream.fileno()  # type: ignore[attr-defined]  # a stream without a descriptor needs nothing
    except (AttributeError, OSError, ValueError):
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, descriptor)
    os.close(sink)
