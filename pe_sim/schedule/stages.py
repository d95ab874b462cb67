"""Stages: one operator or one collective over a set of PEs, with arrays instead of one object per PE.

A *slot* holds when one operand is ready: a cycle per PE, or per hub (the root's copy for each group, or the joint of
each reduction). Stages read and write slots; slot numbers are local to a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.networks.network import GraphNetwork, Tree
from pe_sim.mapping.classes import PeClasses
from pe_sim.mapping.placed import BlockRun
from pe_sim.network.routing.hops import Hops
from pe_sim.trace import PartCycles
from pe_sim.units import BoolArray, IntArray, exact_sum


class Resource(StrEnum):
    """The kinds of resources that stages keep busy."""

    PE_MATRIX = "pe_matrix"
    PE_VECTOR = "pe_vector"
    PE_MEMORY = "pe_memory"
    ROOT_VECTOR = "root_vector"
    ROOT_MEMORY = "root_memory"
    BUS = "bus"
    TREE = "tree"
    DOWNLINK = "downlink"
    NETWORK = "network"


class Tag(StrEnum):
    """The tags under which messages are counted (machine model, section 9)."""

    BROADCAST = "broadcast"
    MULTICAST = "multicast"
    SCATTER = "scatter"
    GATHER = "gather"
    ALL_GATHER = "all-gather"
    ALL_TO_ALL = "all-to-all"
    REDUCE = "reduce"
    UNICAST = "unicast"
    WEIGHT_STREAM = "weight-stream"


@dataclass(frozen=True, eq=False, slots=True)
class MatrixWork:
    """One matrix operator on every PE; all arrays are (PEs,).

    Args:
        static: whether the streamed operand is weights, which overlap 2 may prefetch (a KV cache never is).
        stream_bytes: bytes streamed in one pass.
        first_memory_cycles: cycles of the memory in the first pass, after the latency of the first access.
        pass_memory_cycles: cycles of the memory in each later pass.
        full_passes: passes before the last one.
        full_compute_cycles, last_compute_cycles: cycles of the matrix unit in a full pass and in the last one.
        last_rows: rows of the last pass.
        tile_bytes: bytes of the first tile; 0 where nothing has to fill (attention).
        dtype: the dtype it multiplies in: the wider of the operands' dtypes.
        macs: multiply-accumulates.
        input_bytes: bytes of the operand that is not streamed, counted whenever the matrix unit takes them from the
            buffer.
        output_bytes: bytes of sums, which go to the buffer.
    """

    static: bool
    stream_bytes: IntArray
    first_memory_cycles: IntArray
    pass_memory_cycles: IntArray
    full_passes: IntArray
    full_compute_cycles: IntArray
    last_compute_cycles: IntArray
    last_rows: IntArray
    tile_bytes: IntArray
    dtype: str
    macs: IntArray
    input_bytes: IntArray
    output_bytes: IntArray

    @property
    def compute_cycles(self) -> IntArray:
        """(PEs,) cycles of the matrix unit."""
        return self.full_passes * self.full_compute_cycles + self.last_compute_cycles

    @property
    def memory_cycles(self) -> IntArray:
        """(PEs,) cycles of the memory, after the latency of the first access."""
        return self.first_memory_cycles + self.full_passes * self.pass_memory_cycles

    @property
    def read_bytes(self) -> IntArray:
        """(PEs,) bytes read from local memory."""
        return (self.full_passes + 1) * self.stream_bytes


@dataclass(frozen=True, slots=True)
class Stage:
    """Base of all stages; `operator` is the graph operator it belongs to, `name` its name in reports."""

    name: str
    operator: str
    distribution: str
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True, slots=True)
class PeStage(Stage):
    """Local work on PEs; `cycles` (PEs,) are those of vector unit or memory port, matrix stages have `matrix` instead.

    `read_bytes` is what all PEs read from local memory beside a matrix operator's stream, `written_bytes` what they
    write there. `operations` of all vector units, each a lane busy for a cycle, read `input_bytes` from the PEs'
    buffers and write `output_bytes` to them. Where `tail_cycles` (PEs,) is given (a GEMM at overlap 3) the stage starts
    at the heads of streamed messages and ends no earlier than `tail_cycles` after their tails.
    """

    resource: Resource
    active: BoolArray
    cycles: IntArray
    matrix: MatrixWork | None = None
    read_bytes: int = 0
    tail_cycles: IntArray | None = None
    written_bytes: int = 0
    operations: int = 0
    input_bytes: int = 0
    output_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RootStage(Stage):
    """Work at the root: one job a group (`cycles` (groups,)), or one job (1,) that serves them all.

    `operations` are those of the vector unit, each a lane busy for a cycle.
    """

    resource: Resource
    cycles: IntArray
    read_bytes: int = 0
    operations: int = 0


@dataclass(frozen=True, slots=True)
class TreeStage(Stage):
    """Reductions through the tree, entry r over PEs first_pe[r] .. last_pe[r] - 1; arrays are (reductions,).

    Args:
        active: (PEs,) PEs that contribute; the others give the neutral element and are not waited for.
        levels: levels of joints that each passes.
        hop_cycles: cycles of the head from the leaves to where the result is.
        whole_tree: whether each occupies all joints; else only those of its own subtree.
        at_root: whether the results end at the root.
        softmax: whether joints merge softmax partials; else they add.
    """

    active: BoolArray
    first_pe: IntArray
    last_pe: IntArray
    num_bytes: IntArray
    levels: int
    hop_cycles: IntArray
    whole_tree: bool
    at_root: bool
    softmax: bool = False

    def combine_cycles(self, tree: Tree) -> int:
        """Cycles that each joint takes to combine: those of a head's way up without the links, by levels."""
        links = sum(tree.level_latency_cycles[: self.levels])
        return (int(self.hop_cycles[0]) - links) // max(self.levels, 1)


@dataclass(frozen=True, slots=True)
class MessageStage(Stage):
    """Messages from PEs or hubs to ranges of PEs or to the root; message arrays are (messages,).

    Args:
        channel: BUS, or DOWNLINK for multicasts down each target's own subtree.
        tag: the tag under which they are counted.
        from_pe: whether `source` indexes PEs (else entries of the input's hub slot).
        source: index of the sender.
        rank: arbitration priority on a tie: -1 for the root, else the sender's lowest PE.
        num_bytes: payload; all positive.
        target: index into the targets.
        to_root: whether targets are the root's copies for the groups (else ranges of PEs).
        first_pe, last_pe: (targets,) receiving PEs; a target is ready when all its messages are complete.
        hop_cycles: (targets,) time of flight down the subtree, for DOWNLINK only.
        source_rate: bytes per cycle that the sender can give, if that is less than the channel's; 0: no limit.
        streams: whether a GEMM may start at the head of a message, ω + λ after its grant (overlap 3).
        early_cycles: (messages,) how long before the tail of the reduction that feeds it the root asks for the bus.
    """

    channel: Resource
    tag: Tag
    from_pe: bool
    source: IntArray
    rank: IntArray
    num_bytes: IntArray
    target: IntArray
    to_root: bool
    first_pe: IntArray
    last_pe: IntArray
    hop_cycles: IntArray
    source_rate: int = 0
    streams: bool = False
    early_cycles: IntArray | None = None


@dataclass(frozen=True, slots=True)
class RoutedStage(Stage):
    """A collective over channels of an interconnect that is a graph (machine model, section 8).

    Args:
        tag: the tag under which it is counted.
        hops: the hops of its messages; their senders are PEs or hubs, their targets PEs or hubs.
        from_pe: whether the senders are PEs (else entries of the input's hub slot).
        to_pes: (PEs,) whether each gets something; None if the targets are hubs.
        num_bytes: (messages,) payload of each message.
        rank: (messages,) the lower goes first if requests arrive together: -1: root, else the sender's lowest PE.
        counted_bytes: payload of each message as section 9 counts it: a reduction once, a multicast once.
        source_rate, streams: as of a `MessageStage`.
        combined_bytes: bytes that a reduction adds to others on the way: all terms but one of every sum.
        softmax: whether a reduction merges softmax partials; else it adds.
        early_cycles: (senders,) how long before the tail of the reduction that feeds it a hub begins to send on.
    """

    tag: Tag
    hops: Hops
    from_pe: bool
    to_pes: BoolArray | None
    num_bytes: IntArray
    rank: IntArray
    counted_bytes: IntArray
    source_rate: int = 0
    streams: bool = False
    early_cycles: IntArray | None = None
    combined_bytes: int = 0
    softmax: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Stages in program order; `entries` and `exits` are the slots it shares with the blocks before and after."""

    stages: tuple[Stage, ...]
    num_slots: int
    entries: tuple[int, ...] = ()
    exits: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """Distinct blocks, and their runs in program order.

    With `classes` it is of several steps at once: arrays that are (PEs,) are then (steps, classes), or (1, classes) if
    they are the same in every step, and the bytes of messages and reductions can have a row a step as well.
    """

    array: ArrayConfig
    blocks: tuple[Block, ...]
    sequence: tuple[BlockRun, ...]
    classes: PeClasses | None = None


@dataclass(frozen=True, slots=True)
class CollectiveSchedule:
    """A collective's schedule and the way that was chosen for it."""

    schedule: Schedule
    algorithm: str


def terms_of(sends: BoolArray, first_pe: IntArray, last_pe: IntArray) -> IntArray:
    """(scopes,) number of PEs of first_pe .. last_pe - 1 that send something; `sends` is (PEs,)."""
    before: IntArray = np.concatenate([[0], np.cumsum(sends)])
    return before[last_pe] - before[first_pe]


CHANNELS = (Resource.BUS, Resource.TREE, Resource.DOWNLINK)
TAGS = tuple(Tag)


def channel_names(schedule: Schedule) -> tuple[str, ...]:
    """Names of an array's channels in a trace."""
    if isinstance(schedule.array.network, GraphNetwork):
        from pe_sim.network.interconnect import interconnect_of  # loads networkx

        return interconnect_of(schedule.array).topology.channels.name
    return tuple(channel.value for channel in CHANNELS)


def resource_of(stage: Stage) -> Resource:
    """The resource that a stage keeps busy: for a matrix operator the matrix unit, whatever limits it."""
    match stage:
        case PeStage(resource=resource) | RootStage(resource=resource) | MessageStage(channel=resource):
            return resource
        case TreeStage():
            return Resource.TREE
    return Resource.NETWORK


def tag_of(stage: Stage) -> Tag | None:
    """The tag under which the stage's messages are counted; None for work."""
    if isinstance(stage, MessageStage | RoutedStage):
        return stage.tag
    return Tag.REDUCE if isinstance(stage, TreeStage) else None


def read_bytes_of(stage: Stage) -> int:
    """Bytes a stage reads from all local memories or the root's."""
    if isinstance(stage, RootStage):
        return stage.read_bytes
    if isinstance(stage, MessageStage | RoutedStage):
        return int(stage.num_bytes.sum()) if stage.tag is Tag.WEIGHT_STREAM else 0
    if isinstance(stage, PeStage):
        streamed = exact_sum(stage.matrix.read_bytes[stage.active]) if stage.matrix is not None else 0
        return stage.read_bytes + streamed
    return 0


def parts_of(stage: Stage) -> BoolArray:
    """(parts,) whether each part of a stage not on PEs keeps something busy; a value without a channel does not."""
    match stage:
        case RootStage(cycles=cycles):
            return cycles > 0
        case TreeStage(num_bytes=num_bytes) | MessageStage(num_bytes=num_bytes):
            return num_bytes > 0
        case RoutedStage(hops=hops, num_bytes=num_bytes):
            return np.concatenate([num_bytes[hops.message] > 0, np.zeros(len(hops.kept_target), dtype=bool)])
    raise TypeError(f"a {type(stage).__name__} has no parts but PEs")


def bounds_of(stage: Stage, parts: PartCycles) -> tuple[int, int] | None:
    """First start and last end of those parts of a stage that keep something busy; None if none does."""
    starts, ends = parts.start[parts.working], parts.end[parts.working]
    if isinstance(stage, RoutedStage):
        last = stage.hops.last_hop
        ends = (parts.end[last] + stage.hops.end_cycles)[parts.working[last]]
    return (int(starts.min()), int(ends.max())) if len(starts) else None
