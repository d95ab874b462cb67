"""All PEs and the root ask for the bus, at once and staggered, as programs of the RTL."""

from __future__ import annotations

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from tests.rtl.programs.lowering import Case
from tests.rtl.programs.scripts import Script

SHORTEST_WAIT, LONGEST_WAIT = 1, 60
LARGEST = 40  # bytes of a message


def contention_program(array: ArrayConfig, seed: int = 0, phases: int = 3) -> Case:
    """In each phase everybody waits for a time of its own, then asks for the messages of several stages at once.

    In the first one nobody waits. In each of the others half of the PEs wait equally long, so that requests of
    several PEs, and of the root, arrive together; the stages' orders and the ranks decide.
    """
    script = Script(array, seed)
    for phase in range(phases):
        pes_first = bool(script.rng.integers(2))  # whose stages come first in program order
        inputs, root_inputs = _waits(script) if phase else ((), ())
        if not pes_first:
            _root_messages(script, root_inputs)
        for _ in range(int(script.rng.integers(1, 4))):
            _pe_messages(script, inputs)
        if pes_first:
            _root_messages(script, root_inputs)
    return script.finish()


def _waits(script: Script) -> tuple[tuple[int, ...], tuple[int, ...]]:
    num_pes, rng = script.array.num_pes, script.rng
    steps = np.full(num_pes, rng.integers(SHORTEST_WAIT, LONGEST_WAIT))
    alone = rng.integers(0, 2, num_pes) == 0
    steps[alone] = rng.integers(SHORTEST_WAIT, LONGEST_WAIT, int(alone.sum()))
    return (script.wait(steps.tolist()),), (script.root_wait(int(steps[0])),)


def _root_messages(script: Script, inputs: tuple[int, ...]) -> None:
    for _ in range(int(script.rng.integers(0, 3))):
        script.broadcast(int(script.rng.integers(1, LARGEST)), inputs)


def _pe_messages(script: Script, inputs: tuple[int, ...]) -> None:
    sizes = script.rng.integers(0, LARGEST, script.array.num_pes)
    sizes[int(script.rng.integers(len(sizes)))] = LARGEST  # somebody sends
    script.gather(sizes.tolist(), inputs, script.whole, to_root=bool(script.rng.integers(2)))
