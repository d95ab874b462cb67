"""What a step takes of this machine's memory at least, and what there is: refuses before it starts what cannot end."""

from __future__ import annotations

import re
from pathlib import Path

from pe_sim.errors import InputError
from pe_sim.mapping.placed import PlacedGraph

# Peaks of whole steps with their reports (fast engine, one bus and one tree, 256 to 65,536 PEs, 32 to 10,000 layers)
# were 21 to 49 bytes for each PE of a node of the distinct blocks, and 158 to 298 for a node of each of their runs.
_NODE_BYTES_PER_PE = 20
_RUN_BYTES_PER_NODE = 120
_WORTH_A_LOOK = 256 << 20  # bytes; every machine has as much
_LEVERS = "fewer PEs (num_pes), layers (model.num_layers) or groups need less, and so do fewer programs at a time"


def least_bytes(placed: PlacedGraph) -> int:
    """Bytes that simulating and reporting a placed step takes at least; its peak is up to three times that."""
    sizes = [len(block.nodes) for block in placed.blocks]
    in_all = sum(sizes[run.block] for run in placed.sequence)
    return _NODE_BYTES_PER_PE * placed.array.num_pes * sum(sizes) + _RUN_BYTES_PER_NODE * in_all


def available_bytes() -> int | None:
    """Bytes this process can still take: of the machine, its control group, and its own limit; None: nobody says."""
    found = [1024 * int(free) for free in re.findall(r"MemAvailable:\s+(\d+) kB", _text("/proc/meminfo"))]
    most, used = (_text(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if most.isdigit() and used.isdigit():
        found.append(max(int(most) - int(used), 0))
    limits = re.findall(r"Max address space\s+(\d+)", _text("/proc/self/limits"))
    return min([*found, *map(int, limits)], default=None)


def check_memory(placed: PlacedGraph) -> None:
    """Does nothing where the step may fit this machine's memory.

    Raises:
        InputError: it cannot.
    """
    needed = least_bytes(placed)
    if needed < _WORTH_A_LOOK:
        return
    there = available_bytes()
    if there is not None and needed > there:
        problem = f"this step takes at least {needed:,} bytes of this machine's memory, of which {there:,} are left"
        raise InputError(problem, hint=_LEVERS)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
