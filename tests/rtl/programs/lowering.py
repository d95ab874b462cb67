"""What all lowerings of schedules to the RTL's commands share: lists, slots, addresses, reductions and messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.schedule.stages import MessageStage, Resource, Schedule, TreeStage
from pe_sim.units import ceil_div
from tests.rtl.commands import Combine
from tests.rtl.hardware import UnfitError
from tests.rtl.programs.array_program import ArrayProgram, Wait
from tests.rtl.programs.tiles import MatrixCycles

BUFFER_BYTES = 16 << 10  # of a unit
MEMORY_BYTES = 64 << 10
NUM_SLOTS = 256
ALIGNMENT = 8  # the host writes whole words of so many bytes


@dataclass(frozen=True)
class FixedWait:
    """A stage the RTL only takes the time of; `stands_in` says what becomes of the data."""

    order: int
    name: str
    cycles: int
    stands_in: str


@dataclass(frozen=True)
class Difference:
    """Work that takes other than the model's cycles by construction; a store's is its cycles alone."""

    order: int
    unit: int
    name: str
    model_cycles: int
    made_of: MatrixCycles | int

    @property
    def memory_cycles(self) -> int:
        """What the memory takes more."""
        return self.made_of - self.model_cycles if isinstance(self.made_of, int) else self.made_of.words

    @property
    def command_cycles(self) -> int:
        """Of the RTL."""
        return self.made_of if isinstance(self.made_of, int) else self.made_of.total


@dataclass
class Case:
    """A schedule, its program, and what has to come of it.

    Args:
        program: its `reads` are what `expected` and `labels` tell of, in order.
        work_orders, send_orders, leaf_orders: by unit and index in its list, the stage's position in program order.
        work_cycles: by unit and index, how long the command takes in the RTL.
        work_names: by unit and index, the stage's name.
        fixed_waits: stages whose function the RTL has not.
        differences: commands that take longer than the model says, and why.
        last_send_waits: of each unit's last message.
    """

    schedule: Schedule
    program: ArrayProgram
    expected: list[bytes] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    work_orders: list[list[int]] = field(default_factory=list)
    send_orders: list[list[int]] = field(default_factory=list)
    leaf_orders: list[list[int]] = field(default_factory=list)
    work_cycles: list[list[int]] = field(default_factory=list)
    work_names: list[list[str]] = field(default_factory=list)
    fixed_waits: list[FixedWait] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    last_send_waits: dict[int, tuple[Wait, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, schedule: Schedule) -> Case:
        """A case without commands."""
        units = schedule.array.num_pes + 1
        case = cls(schedule, ArrayProgram.of(schedule.array.num_pes))
        for name in ("work_orders", "send_orders", "leaf_orders", "work_cycles", "work_names"):
            setattr(case, name, [[] for _ in range(units)])
        return case

    @property
    def array(self) -> ArrayConfig:
        """Its array."""
        return self.schedule.array

    @property
    def root(self) -> int:
        """The root's unit."""
        return self.array.num_pes

    def read(self, label: str, unit: int, address: int, expected: bytes) -> None:
        """Asks for the buffer's contents at the end."""
        self.program.reads.append((unit, address, len(expected)))
        self.expected.append(expected)
        self.labels.append(f"{label} on {'the root' if unit == self.root else f'PE {unit}'}")


@dataclass
class Space:
    """Addresses that are given away one after the other, the same on all units that share it."""

    what: str
    limit: int
    used: int = 0

    def take(self, num_bytes: int) -> int:
        """Where `num_bytes` may go.

        Raises:
            UnfitError: there is no room for them.
        """
        first = self.used
        self.used += ceil_div(num_bytes, ALIGNMENT) * ALIGNMENT
        if self.used > self.limit:
            raise UnfitError(f"the RTL has no {self.what} of more than {self.limit} bytes")
        return first

    def take_aligned(self, num_bytes: int) -> int:
        """Where `num_bytes` may go, at a multiple of the power of two that they fit."""
        step = 1 << (num_bytes - 1).bit_length()
        self.used = int(ceil_div(self.used, step)) * step
        return self.take(num_bytes)


@dataclass(frozen=True)
class Ready:
    """What has to be waited for until something is there, by unit; `delivered` over the network."""

    waits: Mapping[int, Wait]
    delivered: bool = False


@dataclass(frozen=True)
class Piece:
    """A PE's part in a reduction: `num_bytes` of its buffer from `address` on, at byte `first` of the payload."""

    address: int
    first: int
    num_bytes: int


@dataclass(frozen=True)
class Passage:
    """Where a message is taken from and goes to, and whether its 32-bit elements are narrowed on the way."""

    in_addr: int
    out_addr: int
    narrows: bool = False
    shift: int = 0


def slot_of(order: int) -> int:
    """The slot that a stage counts up, on every unit; slot 0 is nobody's.

    Raises:
        UnfitError: there are more stages than slots.
    """
    if order + 1 >= NUM_SLOTS:
        raise UnfitError(f"the RTL has no {order + 2} slots")
    return order + 1


def add_work(
    case: Case,
    unit: int,
    order: int,
    form: str,
    fields: Mapping[str, int],
    waits: tuple[Wait, ...],
    cycles: int,
    name: str,
) -> None:
    """One command of a unit's sequencer."""
    case.program.units[unit].add("work", form, {**fields, "done_slot": slot_of(order)}, waits)
    case.work_orders[unit].append(order)
    case.work_cycles[unit].append(cycles)
    case.work_names[unit].append(name)


def delivered_waits(inputs: Sequence[Ready], unit: int) -> tuple[Wait, ...]:
    """What a sequencer waits for: what it did itself before is done, so only what comes over the network."""
    return _distinct(ready.waits[unit] for ready in inputs if ready.delivered and unit in ready.waits)


def all_waits(inputs: Sequence[Ready], unit: int) -> tuple[Wait, ...]:
    """What a message or a leaf waits for."""
    return _distinct(ready.waits[unit] for ready in inputs if unit in ready.waits)


def _distinct(waits: Iterable[Wait]) -> tuple[Wait, ...]:
    return tuple(dict.fromkeys(waits))


def add_reductions(
    case: Case,
    stage: TreeStage,
    order: int,
    inputs: Sequence[Ready],
    pieces: Mapping[int, Piece],
    out_addr: int,
    combine: Combine,
    *,
    merges: bool = False,
) -> Ready:
    """The leaves of a stage's reductions, whose results all go to `out_addr` of the root or of their lowest PEs."""
    waits: dict[int, Wait] = {}
    if stage.at_root and len(stage.first_pe) > 1:
        raise UnfitError("the RTL has no second result of one stage at the root")
    for index, (first, last) in enumerate(zip(stage.first_pe.tolist(), stage.last_pe.tolist(), strict=True)):
        num_bytes, members = int(stage.num_bytes[index]), range(first, last)
        if num_bytes == 0:
            continue
        levels = levels_of(case.array, stage, last - first)
        check_hops(case.array, int(stage.hop_cycles[index]), levels, merges=merges)
        waits[case.root if stage.at_root else first] = (slot_of(order), 1)
        for pe in range(case.root) if stage.whole_tree else members:
            gives = pieces[pe] if pe in members and stage.active[pe] else Piece(0, 0, 0)
            fields = {
                "done_slot": slot_of(order),
                "order": order,
                "levels": levels,
                "to_root": int(stage.at_root),
                "combine": int(combine),
                "merges": int(merges),
                "in_addr": gives.address,
                "slice_first": gives.first,
                "slice_bytes": gives.num_bytes,
                "num_bytes": num_bytes,
                "out_addr": out_addr,
            }
            case.program.units[pe].add("leaves", "leaf", fields, all_waits(inputs, pe) if gives.num_bytes else ())
            case.leaf_orders[pe].append(order)
    return Ready(waits)


def levels_of(array: ArrayConfig, stage: TreeStage, num_leaves: int) -> int:
    """Levels of joints that a reduction over so many PEs passes."""
    tree = array.bus_tree.tree
    if stage.whole_tree:
        return tree.num_levels
    levels = next(level for level in range(tree.num_levels + 1) if tree.arity**level >= num_leaves)
    if levels == 0:
        raise UnfitError("the RTL has no reduction of one PE's data")
    return levels


def check_hops(array: ArrayConfig, hop_cycles: int, levels: int, *, merges: bool) -> None:
    """The stage's way through the tree has to be the RTL's."""
    tree = array.bus_tree.tree
    joint = tree.softmax_combine_cycles if merges else tree.combine_cycles
    assert hop_cycles == sum(tree.level_latency_cycles[:levels]) + levels * joint


def add_messages(
    case: Case, stage: MessageStage, order: int, inputs: Sequence[Ready], passages: Sequence[Passage]
) -> Ready:
    """A stage's messages, each with its passage, in the order of its senders' lists."""
    if stage.channel is not Resource.BUS or stage.source_rate or stage.early_cycles is not None:
        raise UnfitError(f"the RTL has no such messages as those of {stage.name}")
    if stage.to_root and len(stage.first_pe) > 1:
        raise UnfitError("the RTL has no second copy at the root")
    sent = [0] * len(stage.first_pe)
    for message, passage in enumerate(passages):
        rank, target = int(stage.rank[message]), int(stage.target[message])
        unit = case.root if rank < 0 else rank
        sent[target] += 1
        fields = {
            "done_slot": slot_of(order),
            "order": order,
            "to_root": int(stage.to_root),
            "first_pe": 0 if stage.to_root else int(stage.first_pe[target]),
            "last_pe": 0 if stage.to_root else int(stage.last_pe[target]) - 1,
            "in_addr": passage.in_addr,
            "narrows": int(passage.narrows),
            "shift": passage.shift,
            "num_bytes": int(stage.num_bytes[message]),
            "out_addr": passage.out_addr,
        }
        _add_send(case, unit, order, fields, all_waits(inputs, unit))
    counts = {target: (slot_of(order), count) for target, count in enumerate(sent) if count}
    if stage.to_root:
        return Ready({case.root: counts[0]} if counts else {})
    ranges = {target: range(int(stage.first_pe[target]), int(stage.last_pe[target])) for target in counts}
    return Ready({pe: counts[target] for target in counts for pe in ranges[target]}, delivered=True)


def _add_send(case: Case, unit: int, order: int, fields: Mapping[str, int], waits: tuple[Wait, ...]) -> None:
    """A message joins the one before it if both are ready in the same cycle."""
    orders, sends = case.send_orders[unit], case.program.units[unit]
    joins = bool(orders) and (orders[-1] == order or case.last_send_waits.get(unit) == waits)
    sends.add("sends", "send", {**fields, "joins": int(joins)}, waits)
    case.last_send_waits[unit] = waits
    orders.append(order)
