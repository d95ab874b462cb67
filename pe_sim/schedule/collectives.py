"""Schedules of one collective alone, with everything ready at cycle 0 (machine model, section 3)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.networks.network import GraphNetwork
from pe_sim.errors import InfeasibleError, InputError, did_you_mean
from pe_sim.mapping.placed import BlockRun
from pe_sim.network.bus_tree import reduce_cycles, serial_cycles
from pe_sim.schedule.builders import (
    Labels,
    Scopes,
    hub_to_pes,
    hub_to_scopes,
    pairs,
    pes_to_scopes,
    reduction,
    streamed,
)
from pe_sim.schedule.stages import Block, CollectiveSchedule, Schedule, Stage, Tag
from pe_sim.units import BoolArray, IntArray, ceil_div

MAX_MESSAGES = 2**22  # about 2 GiB event by event
MAX_BYTES = 2**60
KINDS: tuple[str, ...] = (
    "broadcast",
    "scatter",
    "gather",
    "reduce",
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
)


def collective_schedule(kind: str, array: ArrayConfig, num_bytes: int) -> CollectiveSchedule:
    """The schedule of collective `kind` on the whole array; dead PEs have no part of it.

    Args:
        num_bytes: per PE for scatter, gather, all-gather, the result of reduce-scatter and the pair of all-to-all,
            of the whole otherwise (the partial sums of an all-reduce).

    Raises:
        InputError: no such kind, or no positive number of bytes.
    """
    check_collective(kind, array, num_bytes)
    if isinstance(array.network, GraphNetwork):
        from pe_sim.schedule.routed_moves import routed_collective  # loads networkx

        return routed_collective(kind, array, num_bytes)
    return _Collective(array, num_bytes).build(kind)


def ways_of(kind: str, array: ArrayConfig, num_bytes: int) -> list[str]:
    """The names of the ways to do a collective that fit the array's interconnect.

    Raises:
        InputError: as of `collective_schedule`; or the array has one bus and one tree, which leave no choice of names.
    """
    check_collective(kind, array, num_bytes)
    if not isinstance(array.network, GraphNetwork):
        raise InputError(
            "algorithms are chosen by name on interconnects that are graphs of channels",
            path="--algorithm",
            given=f"an array of kind {array.network.kind}",
            expected="best, or an array of another network.kind (see pe-sim arrays)",
            hint="on a bus_tree: --set network.collectives.gather=serial, by_reduction or best, and scatter likewise",
        )
    from pe_sim.schedule.routed_moves import collective_planner  # loads networkx

    return collective_planner(kind, array, num_bytes).fitting(kind.replace("-", "_"))


def named_way(kind: str, array: ArrayConfig, name: str) -> ArrayConfig:
    """The array with the algorithm called `name` for a collective."""
    network = array.graph_network
    collectives = replace(network.collectives, **{kind.replace("-", "_"): name})
    return replace(array, network=replace(network, collectives=collectives))


def check_collective(kind: str, array: ArrayConfig, num_bytes: int) -> None:
    """Raises if `collective_schedule` cannot schedule this collective."""
    if kind not in KINDS:
        expected = "one of " + ", ".join(KINDS)
        raise InputError(
            "no such collective", path="KIND", given=kind, expected=expected, hint=did_you_mean(kind, KINDS)
        )
    if num_bytes < 1:
        raise InputError(
            "a collective moves at least one byte", path="--bytes", given=num_bytes, expected="an int >= 1"
        )
    if array.dead_pes and isinstance(array.network, GraphNetwork):
        raise InputError(
            "a collective alone on a graph of channels goes over all PEs",
            path="dead_pes",
            given=list(array.dead_pes),
            expected="[], or an array with one bus and one tree (network.kind bus_tree)",
        )
    if kind == "all-to-all":
        _check_pairs(array.num_living, num_bytes)


def _check_pairs(num_pes: int, num_bytes: int) -> None:
    """Raises if an all-to-all has more messages, or bytes, than can be listed and counted."""
    messages = num_pes * (num_pes - 1)
    if messages > MAX_MESSAGES:
        raise InfeasibleError(
            "an all-to-all sends N (N - 1) messages, too many to simulate one by one",
            demand=messages,
            bound=MAX_MESSAGES,
            unit="messages",
            levers=("fewer PEs (--set num_pes=...)", "another collective"),
        )
    if messages * num_bytes > MAX_BYTES:
        raise InfeasibleError(
            "an all-to-all of this size cannot be counted",
            demand=messages * num_bytes,
            bound=MAX_BYTES,
            unit="bytes",
            levers=("fewer bytes a pair", "fewer PEs (--set num_pes=...)"),
        )


@dataclass
class _Collective:
    array: ArrayConfig
    num_bytes: int
    stages: list[Stage] = field(default_factory=list)

    def build(self, kind: str) -> CollectiveSchedule:
        algorithm = getattr(self, "_" + kind.replace("-", "_"))()
        block = Block(tuple(self.stages), len(self.stages))
        return CollectiveSchedule(Schedule(self.array, (block,), (BlockRun(0, None),)), algorithm)

    def _broadcast(self) -> str:
        self._hub_to_all(self.num_bytes)
        return "one message"

    def _scatter(self) -> str:
        return self._spread(self.num_bytes)

    def _gather(self) -> str:
        return self._collect(Tag.GATHER, to_root=True)

    def _all_gather(self) -> str:
        return "nothing to move" if self._alone() else self._collect(Tag.ALL_GATHER, to_root=False)

    def _reduce(self) -> str:
        self._reduce_to_root(self.num_bytes)
        return "tree"

    def _all_reduce(self) -> str:
        if self._alone():
            return "nothing to move"
        self._reduce_to_root(self.num_bytes)
        self._hub_to_all(self._rescaled(self.num_bytes, to_partial=False))
        return "reduce + broadcast"

    def _reduce_scatter(self) -> str:
        if self._alone():
            return "nothing to move"
        self._reduce_to_root(self._rescaled(self.num_bytes * self.array.num_living, to_partial=True))
        return "reduce + " + self._spread(self.num_bytes)

    def _all_to_all(self) -> str:
        self.stages.append(pairs(self._labels("all-to-all"), self._living(), self.num_bytes))
        return "serial"

    def _spread(self, per_pe: int) -> str:
        """Adds the way from the root to shards; returns its name.

        It is one message a PE, or the whole once, of which each PE keeps its slice.
        """
        bus, shards = self.array.bus_tree.bus, self._shards(per_pe)
        serial = int(serial_cycles(bus, shards, from_root=True))
        at_once = int(serial_cycles(bus, shards.sum(keepdims=True), from_root=True))
        if self._is_serial(self.array.bus_tree.collectives.scatter, serial, at_once):
            group = np.zeros(self.array.num_pes, dtype=np.int64)
            self.stages.append(hub_to_pes(self._labels("scatter"), group, self._whole(), shards, from_root=True))
            return "serial"
        self._hub_to_all(int(shards.sum()))
        return "broadcast + slice"

    def _collect(self, tag: Tag, *, to_root: bool) -> str:
        """Adds the way from shards to the root or to all PEs; returns its name.

        It is one message a PE, or disjoint slices summed on their way through the tree.
        """
        bus, tree, shards = self.array.bus_tree.bus, self.array.bus_tree.tree, self._shards(self.num_bytes)
        whole = shards.sum(keepdims=True)
        by_reduction = int(reduce_cycles(tree, whole, tree.num_levels, parallel=False))
        by_reduction += 0 if to_root else int(serial_cycles(bus, whole, from_root=True))
        serial = int(serial_cycles(bus, shards, from_root=False))
        if self._is_serial(self.array.bus_tree.collectives.gather, serial, by_reduction):
            group = np.zeros(self.array.num_pes, dtype=np.int64)
            labels = self._labels(tag.value)
            self.stages.append(pes_to_scopes(labels, tag, group, self._whole(), shards, to_root=to_root))
            return "serial"
        self._reduce_to_root(int(whole[0]))
        if to_root:
            return "reduction of slices"
        self._hub_to_all(int(whole[0]))
        return "reduction of slices + broadcast"

    def _is_serial(self, way: str, serial: int, at_once: int) -> bool:
        return way == "serial" or (way == "best" and serial < at_once)

    def _reduce_to_root(self, num_bytes: int) -> None:
        sent = np.array([num_bytes], dtype=np.int64)
        self.stages.append(
            reduction(self._labels("reduce"), self.array, self._whole(), sent, self._living(), at_root=True)
        )

    def _hub_to_all(self, num_bytes: int) -> None:
        sent = np.array([num_bytes], dtype=np.int64)
        stage = hub_to_scopes(self._labels("broadcast"), self.array, self._whole(), sent, from_root=True)
        self.stages.append(streamed(stage, self.array, self.stages[-1] if self.stages else None))

    def _labels(self, name: str) -> Labels:
        """Labels of the next stage, which waits for the one before it."""
        inputs = (len(self.stages) - 1,) if self.stages else ()
        return Labels(name, name, inputs, len(self.stages))

    def _whole(self) -> Scopes:
        return Scopes.of_array(self.array.num_pes)

    def _shards(self, per_pe: int) -> IntArray:
        return per_pe * self._living().astype(np.int64)

    def _living(self) -> BoolArray:
        """(PEs,) whether each is not dead."""
        living = np.ones(self.array.num_pes, dtype=bool)
        living[list(self.array.dead_pes)] = False
        return living

    def _rescaled(self, num_bytes: int, *, to_partial: bool) -> int:
        """Bytes of the same elements in the other dtype: partial sums travel in `partial`, results in `activation`."""
        partial, activation = self.array.dtypes.partial.bits, self.array.dtypes.activation.bits
        source, target = (activation, partial) if to_partial else (partial, activation)
        return ceil_div(num_bytes * target, source)

    def _alone(self) -> bool:
        """Whether one PE is alone, so that Partial, Shard and Replicate are the same thing."""
        return self.array.num_living == 1
