"""Runs programs on the RTL: takes programs of all units, gives cycles, events and what was read back."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.rtl.build import HDL, binary, shortened
from tests.rtl.hardware import LEVEL_BITS, Hardware
from tests.rtl.programs.array_program import (
    HOST_BYTES,
    ArrayProgram,
    BusGrant,
    RunResult,
    TreeStart,
    WorkSpan,
)

MOST_CYCLES = 1_000_000
LONGEST_SECONDS = 600  # of all programs together
WORK_START, WORK_END, BUS_GRANT, TREE_START = range(4)  # kinds of events, as in `driver.cpp`
NAMED_UNITS = 8  # in the message about a run that does not end

Words = NDArray[np.uint64]


class RunError(Exception):
    """The RTL stopped itself, or did not come to an end."""


def run(
    hardware: Hardware, programs: Sequence[ArrayProgram], most_cycles: int = MOST_CYCLES, hdl: Path = HDL
) -> list[RunResult]:
    """Runs the programs one after the other, each from a reset.

    Buffers and memories are not cleared in between: what a program neither wrote nor is given is whatever was there.

    Args:
        most_cycles: after which a program counts as stuck.

    Raises:
        BuildError: the RTL cannot be built.
        RunError: an assertion of the RTL failed, or a program does not come to its end.
    """
    for program in programs:
        if len(program.units) != hardware.num_pes + 1:
            raise ValueError(f"{len(program.units)} programs for {hardware.num_pes} PEs and the root")
    cases = [_case(program, quiet_cycles(hardware), most_cycles) for program in programs]
    done = subprocess.run(
        [binary(hardware, hdl)], input=b"".join(cases), capture_output=True, check=False, timeout=LONGEST_SECONDS
    )
    if done.returncode != 0:
        raise RunError(f"the RTL stopped ({done.returncode}):\n{shortened(done.stderr.decode(errors='replace'))}")
    words = np.frombuffer(done.stdout, np.uint64)
    results = []
    for number, program in enumerate(programs):
        (ended, cycles, num_events, num_data), words = words[:4].tolist(), words[4:]
        events, data, words = np.split(words, [num_events, num_events + num_data])[:3]
        results.append(_result(number, program, bool(ended), cycles, events, data.tobytes()))
    return results


def quiet_cycles(hardware: Hardware) -> int:
    """For how long nothing may begin before nothing is under way either: all latencies one after the other, twice."""
    joints = hardware.num_levels * max(hardware.combine, hardware.merge)
    links = sum(hardware.tree_latencies >> LEVEL_BITS * level & 0xFF for level in range(hardware.num_levels))
    bus = hardware.bus_latency + hardware.bus_overhead + hardware.bus_request
    pe = hardware.matrix_latency + hardware.vector_latency + hardware.memory_latency
    root = hardware.root_vector_latency + hardware.root_memory_latency
    return 2 * (joints + links + bus + pe + root) + 64


def _case(program: ArrayProgram, quiet: int, most_cycles: int) -> bytes:
    writes = [
        (unit | space << 16 | address << 32, data)
        for unit, its in enumerate(program.units)
        for space, address, data in its.host_writes()
    ]
    reads = [(unit | address << 32, num_bytes) for unit, address, num_bytes in program.reads]
    header = [(len(writes), len(reads)), (quiet, most_cycles)]
    return np.array([*header, *writes, *reads], np.uint64).tobytes()


def _result(number: int, program: ArrayProgram, ended: bool, cycles: int, events: Words, data: bytes) -> RunResult:
    counts: Counter[tuple[int, int]] = Counter()  # of (kind, unit)
    starts: dict[tuple[int, int], int] = {}  # of a unit's command
    work, grants, entries = [], [], []
    for event in events.tolist():
        kind, unit, cycle = event & 0xFFFF, event >> 16 & 0xFFFF, event >> 32
        index = counts[kind, unit]
        counts[kind, unit] += 1
        if kind == WORK_START:
            starts[unit, index] = cycle
        elif kind == WORK_END:
            work.append(WorkSpan(unit, index, starts[unit, index], cycle + 1))
        elif kind == BUS_GRANT:
            grants.append(BusGrant(unit, index, cycle))
        else:
            entries.append(TreeStart(unit, index, cycle))
    waiting = list(_waiting(program, counts))
    if waiting or not ended:
        what = "ended too early" if ended else "did not come to its end"
        more = f"\n... and {len(waiting) - NAMED_UNITS} more" if len(waiting) > NAMED_UNITS else ""
        raise RunError("\n".join([f"program {number} {what}:", *waiting[:NAMED_UNITS]]) + more)
    return RunResult(cycles, tuple(_reads(program, data)), tuple(work), tuple(grants), tuple(entries))


def _waiting(program: ArrayProgram, counts: Counter[tuple[int, int]]) -> Iterator[str]:
    root = len(program.units) - 1
    for unit, its in enumerate(program.units):
        wanted = {WORK_START: its.work, WORK_END: its.work, BUS_GRANT: its.sends, TREE_START: its.leaves}
        if any(counts[kind, unit] != len(commands) for kind, commands in wanted.items()):
            begun, ended, grants, starts = (counts[kind, unit] for kind in wanted)
            yield (
                f"{'the root' if unit == root else f'PE {unit}'}: of {len(its.work)} work commands {begun} have begun "
                f"and {ended} have ended; {grants} of {len(its.sends)} sends and {starts} of {len(its.leaves)} leaves "
                "have begun"
            )


def _reads(program: ArrayProgram, data: bytes) -> Iterator[bytes]:
    first = 0
    for _, _, num_bytes in program.reads:
        yield data[first : first + num_bytes]
        first += -(-num_bytes // HOST_BYTES) * HOST_BYTES
