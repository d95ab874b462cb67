"""How many cycles a STORE takes: pieces of different words go in one cycle if they are in different banks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

UNIT_BYTES = 4  # of a bank, as in `copy_unit.sv`


def num_banks(word_bytes: int) -> int:
    """Banks of a memory whose words have so many bytes."""
    return max(word_bytes // UNIT_BYTES, 1)


def store_cycles(fields: Mapping[str, int], word_bytes: int) -> int:
    """Cycles of a STORE command: the next units in each, up to the first one whose bank is taken."""
    banks, cycles = num_banks(word_bytes), 0
    used: set[int] = set()
    for address in _units(fields):
        bank = _bank(address, word_bytes, banks)
        if cycles == 0 or bank in used or len(used) == banks:
            cycles += 1
            used = set()
        used.add(bank)
    return cycles


def _units(fields: Mapping[str, int]) -> Iterator[int]:
    for i2 in range(fields["count2"]):
        for i1 in range(fields["count1"]):
            for i0 in range(fields["count0"]):
                chunk = fields["out_addr"]
                chunk += i0 * fields["out_pitch0"] + i1 * fields["out_pitch1"] + i2 * fields["out_pitch2"]
                yield from range(chunk, chunk + fields["chunk"], UNIT_BYTES)


def _bank(address: int, word_bytes: int, banks: int) -> int:
    """Words are turned by the sum of the digits of their index."""
    turned, index = address % word_bytes // UNIT_BYTES, address // word_bytes
    while banks > 1 and index:
        index, digit = divmod(index, banks)
        turned += digit
    return turned % banks
