"""What every channel of the interconnect carried: takes a schedule, gives messages, bytes and busy cycles by tag.

A message counts on each channel that it is carried over: of a broadcast along a tree of channels every hop is one
message of its bytes there. An array with one bus and one tree has the rows bus, tree and, if there is one, downlink;
the busy cycles of the last two are those of their busiest joints, for joints of disjoint subtrees work side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pe_sim.network.bus_tree import occupancy_cycles
from pe_sim.schedule.stages import MessageStage, Resource, RoutedStage, Schedule, Tag, TreeStage
from pe_sim.units import IntArray, ceil_div

if TYPE_CHECKING:
    from pandas import DataFrame

FloatArray = npt.NDArray[np.float64]

NUM_HOTTEST = 10
TAGS = tuple(tag.value for tag in Tag)


@dataclass(frozen=True, eq=False)
class ChannelTable:
    """What each channel of an interconnect carried in one step; entry c of each field belongs to channel c.

    Args:
        name, level: as the topology calls them.
        bytes_per_cycle: its width.
        length_mm: of its wire under the floor plan; None where nobody worked it out (one bus and one tree).
        messages, bytes, busy: (channels, tags) counts, bytes and busy cycles, tags in the order of `TAGS`.
        mean_busy: (channels,) busy cycles; for a tree the mean over its leaves of what passes above them.
        elapsed_cycles: of the step.
    """

    name: tuple[str, ...]
    level: tuple[str, ...]
    bytes_per_cycle: IntArray
    length_mm: FloatArray | None
    messages: IntArray
    bytes: IntArray
    busy: IntArray
    mean_busy: FloatArray
    elapsed_cycles: int

    def __len__(self) -> int:
        """Number of channels."""
        return len(self.name)

    @cached_property
    def busy_cycles(self) -> IntArray:
        """(channels,) cycles in which each channel was held."""
        busy: IntArray = self.busy.sum(axis=1)
        return busy

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that were used, in the order of the machine model."""
        return tuple(tag for tag, count in zip(TAGS, self.messages.sum(axis=0).tolist(), strict=True) if count)

    def utilization(self, *tags: str) -> FloatArray:
        """(channels,) busy over elapsed cycles (0..1), of all messages or of those with the given tags."""
        columns = [TAGS.index(tag) for tag in tags or TAGS]
        return np.asarray(self.busy[:, columns].sum(axis=1) / max(self.elapsed_cycles, 1), dtype=np.float64)

    def hottest(self, count: int = NUM_HOTTEST) -> list[int]:
        """Indices of at most `count` busiest channels, of equals the earlier first; idle ones are left out."""
        order = np.lexsort((np.arange(len(self)), -self.busy_cycles))[:count]
        return [channel for channel in order.tolist() if self.busy_cycles[channel] > 0]

    def row(self, channel: int) -> dict[str, Any]:
        """All figures of one channel, JSON-ready."""
        length = None if self.length_mm is None else float(self.length_mm[channel])
        return {
            "name": self.name[channel],
            "level": self.level[channel],
            "bytes_per_cycle": int(self.bytes_per_cycle[channel]),
            "length_mm": length,
            **self._counts([channel]),
            "utilization": float(self.utilization()[channel]),
            "by_tag": self._by_tag([channel]),
        }

    def by_level(self) -> dict[str, dict[str, Any]]:
        """Sums over the channels of each level and how busy they were, by level in the order of the channels."""
        elapsed = max(self.elapsed_cycles, 1)
        return {
            level: {
                "channels": len(mine),
                **self._counts(mine),
                "utilization_mean": float(self.mean_busy[mine].mean()) / elapsed,
                "utilization_max": float(self.busy_cycles[mine].max()) / elapsed,
                "by_tag": self._by_tag(mine),
            }
            for level, mine in channels_by_level(self.level).items()
        }

    def to_dict(self) -> dict[str, Any]:
        """The levels and the hottest channels, JSON-ready; `to_frame` and `to_rows` give all channels."""
        return {
            "count": len(self),
            "by_level": self.by_level(),
            "hottest": [self.row(channel) for channel in self.hottest()],
        }

    def to_rows(self) -> list[dict[str, Any]]:
        """A flat row for every channel: sums, then messages, bytes and busy cycles of each tag that was used."""
        rows = []
        used = self.tags
        for channel in range(len(self)):
            row = self.row(channel)
            by_tag = row.pop("by_tag")
            nothing = dict.fromkeys(("messages", "bytes", "busy_cycles"), 0)
            for tag in used:
                row |= {f"{tag} {what}": count for what, count in by_tag.get(tag, nothing).items()}
            rows.append(row)
        return rows

    def to_frame(self) -> DataFrame:
        """`to_rows()` as a pandas.DataFrame."""
        from pandas import DataFrame  # heavy, and only needed here

        return DataFrame(self.to_rows())

    def _counts(self, channels: list[int]) -> dict[str, int]:
        return {
            "messages": int(self.messages[channels].sum()),
            "bytes": int(self.bytes[channels].sum()),
            "busy_cycles": int(self.busy[channels].sum()),
        }

    def _by_tag(self, channels: list[int]) -> dict[str, dict[str, int]]:
        sums = np.stack([table[channels].sum(axis=0) for table in (self.messages, self.bytes, self.busy)], axis=1)
        return {
            tag: {"messages": messages, "bytes": num_bytes, "busy_cycles": busy}
            for tag, (messages, num_bytes, busy) in zip(TAGS, sums.tolist(), strict=True)
            if messages
        }


def channels_by_level(level: Sequence[str]) -> dict[str, list[int]]:
    """The channels of each level, from the level of each channel."""
    members: dict[str, list[int]] = {}
    for channel, its_level in enumerate(level):
        members.setdefault(its_level, []).append(channel)
    return members


def channel_table(schedule: Schedule, elapsed_cycles: int) -> ChannelTable:
    """What the channels of an array carry in a step of `elapsed_cycles`."""
    if schedule.array.network.is_graph:
        return _of_graph(schedule, elapsed_cycles)
    return _of_bus_tree(schedule, elapsed_cycles)


def _of_graph(schedule: Schedule, elapsed_cycles: int) -> ChannelTable:
    from pe_sim.network.interconnect import interconnect_of  # loads networkx

    channels = interconnect_of(schedule.array).topology.channels
    messages, sizes, busy = np.zeros((3, len(TAGS), len(channels)), dtype=np.int64)
    for stage, repeats in distinct_stages(schedule):
        if not isinstance(stage, RoutedStage):
            continue
        tag, hops = TAGS.index(stage.tag.value), stage.hops
        sent = stage.num_bytes[hops.message]
        on, carried = hops.channel[sent > 0], sent[sent > 0]
        _, held = hops.occupancy(channels, stage.num_bytes, stage.source_rate)
        messages[tag] += repeats * np.bincount(on, minlength=len(channels))
        np.add.at(sizes[tag], on, repeats * carried)  # bincount's weights would lose whole bytes beyond 2^53
        np.add.at(busy[tag], on, repeats * held[sent > 0])
    return ChannelTable(
        channels.name,
        channels.level,
        channels.bytes_per_cycle,
        channels.length_mm,
        messages.T,
        sizes.T,
        busy.T,
        busy.sum(axis=0).astype(np.float64),
        elapsed_cycles,
    )


def _of_bus_tree(schedule: Schedule, elapsed_cycles: int) -> ChannelTable:
    network = schedule.array.bus_tree
    rows = [Resource.BUS, Resource.TREE, *([Resource.DOWNLINK] if network.tree.downlink else [])]
    messages, sizes, busy = np.zeros((3, len(rows), len(TAGS)), dtype=np.int64)
    for stage, repeats in distinct_stages(schedule):
        if not isinstance(stage, TreeStage | MessageStage):
            continue
        channel = Resource.TREE if isinstance(stage, TreeStage) else stage.channel
        cell = rows.index(channel), TAGS.index(Tag.REDUCE.value if isinstance(stage, TreeStage) else stage.tag.value)
        messages[cell] += repeats * int(np.count_nonzero(stage.num_bytes))
        sizes[cell] += repeats * int(stage.num_bytes.sum())
        if isinstance(stage, MessageStage) and channel is Resource.BUS:
            busy[cell] += repeats * int(occupancy_cycles(network.bus, stage.num_bytes, stage.source_rate).sum())
    mean = [float(busy[0].sum())]
    for row, channel in enumerate(rows[1:], start=1):
        joints = _joint_busy_by_tag(schedule, channel)
        busy[row] = joints[int(joints.sum(axis=1).argmax())]
        mean.append(float(joints.sum(axis=1).mean()))
    names = tuple(channel.value for channel in rows)
    widths = np.array([network.bus.bytes_per_cycle, *[network.tree.bytes_per_cycle] * (len(rows) - 1)], dtype=np.int64)
    return ChannelTable(names, names, widths, None, messages, sizes, busy, np.array(mean), elapsed_cycles)


def joint_busy(schedule: Schedule, channel: Resource) -> IntArray:
    """(PEs,) beats of all that passes the joints above each PE, in the tree or its downlink.

    Reductions in disjoint subtrees go on side by side, so the sum over all of them may exceed the time they take.
    """
    busy: IntArray = _joint_busy_by_tag(schedule, channel).sum(axis=1)
    return busy


def _joint_busy_by_tag(schedule: Schedule, channel: Resource) -> IntArray:
    busy = np.zeros((schedule.array.num_pes, len(TAGS)), dtype=np.int64)
    for stage, repeats in distinct_stages(schedule):
        if isinstance(stage, TreeStage) and channel is Resource.TREE:
            firsts, lasts, sizes = stage.first_pe, stage.last_pe, stage.num_bytes
            tag, whole = TAGS.index(Tag.REDUCE.value), stage.whole_tree
        elif isinstance(stage, MessageStage) and stage.channel is channel:
            firsts, lasts, sizes = stage.first_pe[stage.target], stage.last_pe[stage.target], stage.num_bytes
            tag, whole = TAGS.index(stage.tag.value), False
        else:
            continue
        beats = repeats * ceil_div(sizes, schedule.array.bus_tree.tree.bytes_per_cycle)
        if whole:
            busy[:, tag] += beats.sum()
            continue
        for first, last, cycles in zip(firsts.tolist(), lasts.tolist(), beats.tolist(), strict=True):
            busy[first:last, tag] += cycles
    return busy


def distinct_stages(schedule: Schedule) -> list[tuple[Any, int]]:
    """Every distinct stage of a schedule with how often it runs."""
    runs = Counter(run.block for run in schedule.sequence)
    return [(stage, repeats) for block, repeats in runs.items() for stage in schedule.blocks[block].stages]
