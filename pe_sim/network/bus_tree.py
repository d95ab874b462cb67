"""Closed forms of the shared bus and the reduction tree (machine model, sections 2 and 3).

Everything here is "in isolation": all data ready at cycle 0, nobody else on the channel.
"""

from __future__ import annotations

import numpy as np

from pe_sim.config.networks.network import Bus, Tree
from pe_sim.units import IntArray, ceil_div


def occupancy_cycles(bus: Bus, num_bytes: IntArray, source_rate: int = 0) -> IntArray:
    """Cycles that each message holds the bus: overhead + beats, paid per burst; an empty message sends nothing.

    Beats go at the sender's rate where that is less than the bus's (0: no limit).
    """
    rate = min(bus.bytes_per_cycle, source_rate or bus.bytes_per_cycle)
    full, rest = (0, num_bytes) if bus.burst_bytes is None else np.divmod(num_bytes, bus.burst_bytes)
    last: IntArray = np.where(rest > 0, bus.overhead_cycles + ceil_div(rest, rate), 0)
    return last if bus.burst_bytes is None else last + full * (bus.overhead_cycles + ceil_div(bus.burst_bytes, rate))


def burst_sizes(bus: Bus, num_bytes: int) -> list[int]:
    """Bytes of each burst that a message is cut into; the last has what remains."""
    if bus.burst_bytes is None or num_bytes <= bus.burst_bytes:
        return [num_bytes]
    full, rest = divmod(num_bytes, bus.burst_bytes)
    return [bus.burst_bytes] * full + ([rest] if rest else [])


def occupancy_of(bus: Bus, burst: int, source_rate: int = 0) -> int:
    """Cycles that one burst holds the bus: overhead + beats, at the sender's rate where that is less (0: no limit)."""
    rate = min(bus.bytes_per_cycle, source_rate) if source_rate else bus.bytes_per_cycle
    return bus.overhead_cycles - (-burst // rate)


def serial_cycles(bus: Bus, num_bytes: IntArray, *, from_root: bool) -> IntArray:
    """(...) completion cycles of messages, (..., messages), sent one after another: occupancies + time of flight.

    The first of PEs' messages also has to be asked for.
    """
    busy = occupancy_cycles(bus, num_bytes).sum(axis=-1)
    return _if_any(busy, bus.latency_cycles + (0 if from_root else bus.request_cycles))


def hop_cycles(tree: Tree, levels: int, *, softmax: bool = False) -> int:
    """Cycles of a head through the lowest `levels` levels: the link and combining of each."""
    combine = tree.softmax_combine_cycles if softmax else tree.combine_cycles
    return sum(tree.level_latency_cycles[:levels]) + levels * combine


def reduce_cycles(tree: Tree, num_bytes: IntArray, levels: int, *, parallel: bool, softmax: bool = False) -> IntArray:
    """(...) completion cycles of reductions, (..., reductions), that start together.

    They run side by side in disjoint subtrees (`parallel`), or one after another.
    """
    beats = ceil_div(num_bytes, tree.bytes_per_cycle)
    held = beats.max(axis=-1, initial=0) if parallel else beats.sum(axis=-1)
    return _if_any(held, hop_cycles(tree, levels, softmax=softmax))


def downlink_cycles(tree: Tree, num_bytes: IntArray, levels: int) -> IntArray:
    """(...) completion cycles of multicasts, (..., multicasts), from joints down their subtrees, all at once."""
    beats = ceil_div(num_bytes, tree.bytes_per_cycle).max(axis=-1, initial=0)
    return _if_any(beats, sum(tree.level_latency_cycles[:levels]))


def _if_any(busy: IntArray, flight: int) -> IntArray:
    """Busy cycles and time of flight; 0 where nothing is sent."""
    found: IntArray = np.where(busy > 0, busy + flight, 0)
    return found
