"""Timing of a PE's local memory: takes bytes of accesses, gives cycles (machine model, section 4).

No other module knows how the kinds of local memory behave: matrix operators, cache appends, table lookups and both
engines ask here. An *access* is what one operator does: after `latency_cycles` its bytes come in one *stream*,
and `closing_cycles` after the last of them the memory is ready for the next access.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np

from pe_sim.config.arrays.array import DramBank, LocalMemory, Memory
from pe_sim.units import IntArray, ceil_div

Amount = TypeVar("Amount", int, IntArray)  # bytes or cycles of one PE, or (PEs,)
# Adds up a figure of the bytes of one piece over the pieces of an access that lie apart.
Pieces = Callable[[Callable[[IntArray], IntArray]], IntArray]


@dataclass(frozen=True, slots=True)
class FlatTiming:
    """Timing of a memory with one latency and one rate, wherever things lie."""

    memory: Memory
    busy_latency_cycles = 0  # the part of the latency in which the memory is busy
    closing_cycles = 0

    @property
    def latency_cycles(self) -> int:
        """Cycles from the start of an access to its stream, λm."""
        return self.memory.latency_cycles

    def stream_cycles(self, num_bytes: Amount) -> Amount:
        """Cycles of a stream that begins an access."""
        return ceil_div(num_bytes, self.memory.bytes_per_cycle)

    def next_stream_cycles(self, num_bytes: Amount) -> Amount:
        """Cycles of a stream that follows another one in the same access."""
        return self.stream_cycles(num_bytes)

    def chain_cycles(self, next_streams: IntArray) -> IntArray:
        """Cycles of an access of several streams, from the sum over their `next_stream_cycles`."""
        return next_streams

    def fetched_ahead(self, num_bytes: Amount, limit_bytes: int, ahead_cycles: Amount) -> tuple[Amount, Amount]:
        """Bytes of a stream, at most `limit_bytes`, that have come after `ahead_cycles`, and the cycles they took."""
        fetched = _least(_least(num_bytes, limit_bytes), self.memory.bytes_per_cycle * ahead_cycles)
        return fetched, self.stream_cycles(fetched)

    def rest_cycles(self, num_bytes: Amount, fetched_bytes: Amount, spent_cycles: Amount) -> Amount:
        """Cycles that the rest of a stream takes of which `fetched_bytes` are there."""
        return self.stream_cycles(num_bytes - fetched_bytes)

    def read_cycles(self, num_bytes: IntArray, pieces: Pieces) -> IntArray:
        """(PEs,) cycles of a read by itself."""
        return np.where(num_bytes > 0, self.latency_cycles + self.stream_cycles(num_bytes), 0)

    def write_cycles(self, num_bytes: IntArray, pieces: Pieces) -> IntArray:
        """(PEs,) cycles of a write by itself."""
        return self.stream_cycles(num_bytes)


@dataclass(frozen=True, slots=True)
class BankTiming:
    """Timing of a DRAM bank that opens one row at a time; every tensor begins with a row of its own, and fills rows.

    Back to back a row of c columns costs activate + (c - 1) · column + read to precharge + precharge. The latency of an
    access is its first activation, its closing is the last column's read-to-precharge and precharge, and its stream is
    all between them.
    """

    memory: DramBank

    @property
    def latency_cycles(self) -> int:
        """Cycles from the start of an access to its stream: the first activation."""
        return self.memory.activate_cycles

    @property
    def busy_latency_cycles(self) -> int:
        """Cycles of the latency in which the bank is busy: all, for it opens a row."""
        return self.memory.activate_cycles

    @property
    def closing_cycles(self) -> int:
        """Cycles from the end of a stream, when the last column is out, until a row can be activated."""
        bank = self.memory
        return max(0, bank.read_to_precharge_cycles + bank.precharge_cycles - bank.column_cycles)

    @property
    def _reopen_cycles(self) -> int:
        """Cycles from the end of a row's last column to the first column of the next row."""
        bank = self.memory
        closing = bank.read_to_precharge_cycles + bank.precharge_cycles - bank.column_cycles
        return closing + bank.activate_cycles

    def stream_cycles(self, num_bytes: Amount) -> Amount:
        """Cycles of a stream that begins an access: its first row is open."""
        opened = _least(num_bytes, 1) * self._reopen_cycles
        return self.next_stream_cycles(num_bytes) - opened

    def next_stream_cycles(self, num_bytes: Amount) -> Amount:
        """Cycles of a stream that follows another one in the same access: it has to open its first row too."""
        columns = ceil_div(num_bytes, self.memory.column_bytes)
        rows = ceil_div(num_bytes, self.memory.row_bytes)
        return columns * self.memory.column_cycles + rows * self._reopen_cycles

    def chain_cycles(self, next_streams: IntArray) -> IntArray:
        """Cycles of an access of several streams, from the sum over their `next_stream_cycles`."""
        return np.where(next_streams > 0, next_streams - self._reopen_cycles, 0)

    def fetched_ahead(self, num_bytes: Amount, limit_bytes: int, ahead_cycles: Amount) -> tuple[Amount, Amount]:
        """Bytes of a stream, at most `limit_bytes`, that have come after `ahead_cycles`, and the cycles they took.

        Only whole columns are kept, and the row stays open where the limit stops the stream.
        """
        bank = self.memory
        columns_of_row = bank.row_bytes // bank.column_bytes
        most = _least(num_bytes, limit_bytes - limit_bytes % bank.column_bytes)
        spent = _least(self.stream_cycles(most), ahead_cycles)
        row_cycles = columns_of_row * bank.column_cycles + self._reopen_cycles
        in_row = _least(spent % row_cycles // bank.column_cycles, columns_of_row)
        columns = spent // row_cycles * columns_of_row + in_row
        return _least(most, columns * bank.column_bytes), spent

    def rest_cycles(self, num_bytes: Amount, fetched_bytes: Amount, spent_cycles: Amount) -> Amount:
        """Cycles that the rest of a stream takes that has been going on for `spent_cycles`."""
        return self.stream_cycles(num_bytes) - spent_cycles

    def read_cycles(self, num_bytes: IntArray, pieces: Pieces) -> IntArray:
        """(PEs,) cycles of a read by itself: each piece begins with a row of its own."""
        streams = self.chain_cycles(pieces(self.next_stream_cycles))
        return np.where(num_bytes > 0, self.latency_cycles + streams, 0)

    def write_cycles(self, num_bytes: IntArray, pieces: Pieces) -> IntArray:
        """(PEs,) cycles of a write by itself: as many as of a read of as much."""
        return self.read_cycles(num_bytes, pieces)


MemoryTiming = FlatTiming | BankTiming


@cache
def memory_timing(memory: LocalMemory) -> MemoryTiming:
    """The timing of this memory."""
    return BankTiming(memory) if isinstance(memory, DramBank) else FlatTiming(memory)


def _least(amount: Amount, other: Amount | int) -> Amount:
    if isinstance(amount, int) and isinstance(other, int):
        return min(amount, other)
    least: Amount = np.minimum(amount, other)
    return least
