"""Runs cases on the simulator and on the RTL: takes named cases, gives both cycle counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pe_sim.engine.event.run import run_event
from pe_sim.engine.fast.run import run_fast
from pe_sim.trace import ChannelUse
from tests.rtl.build import HDL
from tests.rtl.cases import Kind, Named
from tests.rtl.hardware import Hardware
from tests.rtl.programs.array_program import RunResult
from tests.rtl.programs.explained import with_command_cycles
from tests.rtl.run import run


@dataclass(frozen=True)
class Comparison:
    """One case.

    Args:
        event_cycles, fast_cycles: of the simulator's engines.
        rtl_cycles: of the RTL.
        wrong: what the RTL computed otherwise than NumPy, by where; empty if nothing.
        moved: messages and reductions that did not start in the simulator's cycle, as (stage, cycle) of either side.
        result: all of the RTL's run.
    """

    named: Named
    event_cycles: int
    fast_cycles: int
    rtl_cycles: int
    wrong: tuple[str, ...]
    moved: tuple[tuple[int, int], ...]
    result: RunResult

    @property
    def split(self) -> dict[str, int]:
        """The difference by what it comes from.

        Bus and tree begin what they do when it is ready, in the simulator as in the RTL; so what is left once the
        simulator is told how long the RTL's work takes would be theirs.
        """
        told_all = run_event(with_command_cycles(self.named.case)).makespan_cycles
        told_memory = run_event(with_command_cycles(self.named.case, memory_alone=True)).makespan_cycles
        network = self.rtl_cycles - told_all
        on_tree = network if self.named.kind is Kind.TREE else 0
        memory = told_memory - self.event_cycles
        compute = told_all - told_memory
        return {"compute": compute, "memory": memory, "bus": network - on_tree, "tree": on_tree}

    @property
    def difference(self) -> int:
        """Cycles that the RTL takes more."""
        return self.rtl_cycles - self.event_cycles

    @property
    def percent(self) -> float:
        """The difference's size in per cent of the RTL's cycles."""
        return 100 * abs(self.difference) / self.rtl_cycles

    def __str__(self) -> str:
        cycles = f"event {self.event_cycles}, fast {self.fast_cycles}, RTL {self.rtl_cycles}"
        moved = f"; other starts (stage, cycle): {self.moved[:4]}" if self.moved else ""
        return f"{self.named.array}: {self.named.name}: {cycles}{moved}" + "".join(f"; {where}" for where in self.wrong)


def compare(cases: Iterable[Named], hdl: Path = HDL) -> Iterator[Comparison]:
    """Every case on both engines and on the RTL; neighbours on equal hardware run in one process."""
    for hardware, group in groupby(cases, lambda named: Hardware.of(named.case.array)):
        together = list(group)
        results = run(hardware, [named.case.program for named in together], hdl=hdl)
        for named, result in zip(together, results, strict=True):
            yield _comparison(named, result)


def _comparison(named: Named, result: RunResult) -> Comparison:
    case = named.case
    trace = run_event(case.schedule)
    reads = zip(case.labels, case.expected, result.reads, strict=True)
    grants = Counter((case.send_orders[grant.unit][grant.index], grant.cycle) for grant in result.grants)
    # The leaves of a reduction start together, and so do equal reductions of several groups: one pair for all of them.
    entries = {(case.leaf_orders[start.unit][start.index], start.cycle) for start in result.starts}
    on_bus, on_tree = _starts(trace.channel_use, "bus"), set(_starts(trace.channel_use, "tree"))
    moved = [*(grants - on_bus), *(on_bus - grants), *(entries ^ on_tree)]
    return Comparison(
        named,
        trace.makespan_cycles,
        run_fast(case.schedule).makespan_cycles,
        result.cycles,
        tuple(f"other values: {label}" for label, expected, found in reads if expected != found),
        tuple(moved),
        result,
    )


def _starts(use: ChannelUse, channel: str) -> Counter[tuple[int, int]]:
    """(stage, cycle) of every occupancy of one channel."""
    if channel not in use.channels:
        return Counter()
    here = use.channel == use.channels.index(channel)
    return Counter(zip(use.stage[here].tolist(), use.start[here].tolist(), strict=True))
