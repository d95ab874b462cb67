"""What a run of the RTL takes and gives: programs of all units with their data, cycles and what was read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.rtl.commands import FORMATS, HOST_BITS, NUM_WAITS, WORD_BITS, pack

HOST_BYTES = HOST_BITS // 8
SPACES = {"work": 0, "sends": 1, "leaves": 2, "buffer": 3, "memory": 4, "lengths": 5}

Wait = tuple[int, int]  # slot, count


def waits_of(waits: tuple[Wait, ...]) -> dict[str, int]:
    """The fields of a command's waits.

    Raises:
        ValueError: there are more than a command can hold.
    """
    if len(waits) > NUM_WAITS:
        raise ValueError(f"a command waits for at most {NUM_WAITS} slots, not {len(waits)}")
    fields: dict[str, int] = {}
    for index, (slot, count) in enumerate(waits):
        fields |= {f"wait{index}_slot": slot, f"wait{index}_count": count}
    return fields


@dataclass
class UnitProgram:
    """One unit's lists of commands, and what is in its buffer and its memory before the start (address, bytes)."""

    work: list[int] = field(default_factory=list)
    sends: list[int] = field(default_factory=list)
    leaves: list[int] = field(default_factory=list)
    buffer: list[tuple[int, bytes]] = field(default_factory=list)
    memory: list[tuple[int, bytes]] = field(default_factory=list)

    def add(self, where: str, form: str, fields: Mapping[str, int], waits: tuple[Wait, ...] = ()) -> None:
        """Appends a command of format `form` (of `FORMATS`) to the list `where`: work, sends or leaves."""
        getattr(self, where).append(pack(FORMATS[form], {**fields, **waits_of(waits)}))

    def host_writes(self) -> Iterator[tuple[int, int, int]]:
        """(space, address, 64-bit word) in the order in which the host writes them; bytes go eight at a time."""
        for name in ("work", "sends", "leaves"):
            for index, word in enumerate(getattr(self, name)):
                for part in range(WORD_BITS // HOST_BITS):
                    chunk = word >> (part * HOST_BITS) & ((1 << HOST_BITS) - 1)
                    yield SPACES[name], index * (WORD_BITS // HOST_BITS) + part, chunk
        for name in ("buffer", "memory"):
            for address, data in getattr(self, name):
                for first in range(0, len(data), HOST_BYTES):
                    chunk = data[first : first + HOST_BYTES].ljust(HOST_BYTES, b"\0")
                    yield SPACES[name], address + first, int.from_bytes(chunk, "little")
        yield SPACES["lengths"], 0, len(self.work) | len(self.sends) << 16 | len(self.leaves) << 32


@dataclass
class ArrayProgram:
    """Programs of PEs 0 .. N-1 and, last, of the root; and what to read of the buffers afterwards.

    Args:
        units: N + 1 programs.
        reads: (unit, address, bytes).
    """

    units: list[UnitProgram]
    reads: list[tuple[int, int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, num_pes: int) -> ArrayProgram:
        """Empty programs."""
        return cls([UnitProgram() for _ in range(num_pes + 1)])

    @property
    def root(self) -> UnitProgram:
        """The root's."""
        return self.units[-1]


@dataclass(frozen=True)
class WorkSpan:
    """One command of a unit's sequencer: busy from `start` until before `end`."""

    unit: int
    index: int
    start: int
    end: int


@dataclass(frozen=True)
class BusGrant:
    """The bus given to a unit's message `index` at `cycle`."""

    unit: int
    index: int
    cycle: int


@dataclass(frozen=True)
class TreeStart:
    """A leaf's command `index` entering the tree at `cycle`."""

    unit: int
    index: int
    cycle: int


@dataclass(frozen=True)
class RunResult:
    """What a run gave.

    Args:
        cycles: of the last event: a command's end, or a message or result that is complete.
        reads: the bytes asked for, in order.
    """

    cycles: int
    reads: tuple[bytes, ...]
    work: tuple[WorkSpan, ...]
    grants: tuple[BusGrant, ...]
    starts: tuple[TreeStart, ...]
