"""What the links between arrays carried: takes a program of passes and exchanges, gives channels and traffic."""

from __future__ import annotations

from collections import Counter

import numpy as np

from pe_sim.network.channels import TAP, Channels
from pe_sim.network.interconnect import Interconnect, links_of
from pe_sim.report.channels import TAGS, ChannelTable
from pe_sim.schedule.system import LinkOperation, LinkTask, SystemProgram
from pe_sim.trace import TagTraffic
from pe_sim.units import IntArray


def runs_of_operations(program: SystemProgram) -> list[tuple[LinkOperation, int]]:
    """Every distinct exchange with how often it runs."""
    runs = Counter(task.operation for task in program.tasks if isinstance(task, LinkTask))
    return [(program.operations[index], count) for index, count in sorted(runs.items())]


def link_table(program: SystemProgram, elapsed_cycles: int) -> ChannelTable | None:
    """What every channel of the links carried, hop by hop; None where there are no links.

    A program that is counted under two tags (an all-reduce in one) is shown under the first.
    """
    if program.system.links is None:
        return None
    links = links_of(program.system)
    channels, between = links.topology.channels, _between_arrays(links)
    messages, sizes, busy = np.zeros((3, len(TAGS), len(channels)), dtype=np.int64)
    for operation, repeats in runs_of_operations(program):
        for tag, on, carried, held in _legs(operation, channels):
            row = TAGS.index(tag)
            messages[row] += repeats * np.bincount(on, minlength=len(channels))
            np.add.at(sizes[row], on, repeats * carried)
            np.add.at(busy[row], on, repeats * held)
    return ChannelTable(
        tuple(channels.name[each] for each in between.tolist()),
        tuple(channels.level[each] for each in between.tolist()),
        channels.bytes_per_cycle[between],
        channels.length_mm[between],
        messages.T[between],
        sizes.T[between],
        busy.T[between],
        busy.sum(axis=0)[between].astype(np.float64),
        elapsed_cycles,
    )


def _between_arrays(links: Interconnect) -> IntArray:
    """Channels but for those of the root alone, which has no part between arrays."""
    edges = links.topology.edges
    others = edges[(edges[:, :2] != links.flows.root).all(axis=1), 2]
    return np.unique(others[others != TAP])


def link_traffic(program: SystemProgram, table: ChannelTable | None) -> dict[str, TagTraffic]:
    """Messages and bytes as the machine model counts exchanges, busy cycles of all channels; only tags in use."""
    found: dict[str, TagTraffic] = {}
    for operation, repeats in runs_of_operations(program):
        for leg in operation.legs:
            for tag, messages, num_bytes in leg.counted:
                use = found.setdefault(tag, TagTraffic())
                use.messages += repeats * messages
                use.bytes += repeats * num_bytes
    for tag, use in found.items():
        use.busy_cycles = 0 if table is None else int(table.busy[:, TAGS.index(tag)].sum())
    return found


def _legs(operation: LinkOperation, channels: Channels) -> list[tuple[str, IntArray, IntArray, IntArray]]:
    """Of every leg its tag, and the channel, bytes and busy cycles of each hop that carries something."""
    found = []
    for leg in operation.legs:
        hops = leg.program.hops
        sent = leg.program.message_bytes(leg.payload_bytes)
        _, held = hops.occupancy(channels, sent)
        carries = sent[hops.message] > 0
        on, carried = hops.channel[carries], sent[hops.message][carries]
        found.append((leg.counted[0][0], on, carried, held[carries]))
    return found
