"""What has to move of one tensor for every PE to hold what another mapping wants: takes two holdings.

Along each dim the indices fall into *atoms*, the longest pieces that no PE divides under either mapping; a combination
of one atom a dim is held, or not, as a whole. Of what somebody lacks, the lowest PE that holds it sends it once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import lcm
from typing import Any

import numpy as np
import numpy.typing as npt

from pe_sim.config.dtypes import SCALE_BITS, Dtype
from pe_sim.mapping.attention_split import held_tokens
from pe_sim.mapping_search.switch_holdings import Dim, Holding, Residues, Spans
from pe_sim.units import BoolArray, IntArray, ceil_div

NOBODY = -1  # in place of a sender: no PE holds it, the root has to send it


@dataclass(frozen=True, eq=False, slots=True)
class Axis:
    """The atoms of one dim.

    Args:
        sizes: (atoms,) indices in each.
        before, after: (PEs, atoms) who holds them under the two mappings.
    """

    sizes: IntArray
    before: BoolArray
    after: BoolArray


@dataclass(frozen=True, eq=False, slots=True)
class Transfer:
    """What moves of one tensor; arrays are (PEs,) bytes.

    Args:
        sent: what each PE sends, in one message.
        rootward: what no PE holds, so that the root sends it.
        lacking: all that somebody lacks, each element once.
        received: what each PE keeps of what it hears.
        dropped: what each PE no longer needs.
    """

    sent: IntArray
    rootward: int
    lacking: int
    received: IntArray
    dropped: IntArray

    @property
    def is_empty(self) -> bool:
        """Whether nobody lacks anything."""
        return self.lacking == 0


def transfer(before: Holding | None, after: Holding | None, num_pes: int) -> Transfer:
    """What moves from `before` to `after`; None: no PE holds anything of the tensor."""
    known = before or after
    assert known is not None, "a tensor is held by somebody under one mapping"
    axes = axes_of(before, after, num_pes)
    weights = [axis.sizes for axis in axes[:-1]] + [_inner_bits(axes[-1].sizes, known.dtype)]
    held, wanted, kept = (
        _product([_summed(mask, bits) for mask, bits in zip(masks, weights, strict=True)])
        for masks in zip(*((axis.before, axis.after, axis.before & axis.after) for axis in axes), strict=True)
    )
    received, dropped = wanted - kept, held - kept
    sent = np.zeros(num_pes + 1, dtype=np.int64)  # the last one is the root's
    if received.any():
        lacking, sender = senders(axes)
        sizes = reduce(np.multiply.outer, weights)
        sizes *= lacking
        sums = np.bincount(sender.reshape(-1) + 1, weights=sizes.reshape(-1), minlength=num_pes + 1)
        sent = np.roll(sums.astype(np.int64), -1)  # NOBODY last; bits of a tensor are exact far beyond the largest
    total = known.copies * ceil_div(sent, 8)
    whole = known.copies * ceil_div(int(sent.sum()), 8)
    received, dropped = (known.copies * ceil_div(bits, 8) for bits in (received, dropped))
    return Transfer(total[:-1], int(total[-1]), whole, received, dropped)


def axes_of(before: Holding | None, after: Holding | None, num_pes: int) -> list[Axis]:
    """The atoms of every dim."""
    known = before or after
    assert known is not None
    nothing = [_nowhere(dim) for dim in known.dims]
    sides = ((side.dims if side else nothing) for side in (before, after))
    return [_axis(old, new, num_pes) for old, new in zip(*sides, strict=True)]


def senders(axes: list[Axis]) -> tuple[BoolArray, npt.NDArray[np.int32]]:
    """Of every combination of atoms: whether a PE lacks it, and the lowest PE that holds it before (or NOBODY)."""
    shape = tuple(len(axis.sizes) for axis in axes)
    sender = np.full(shape, NOBODY, dtype=np.int32)  # can be large
    for pe in reversed(_first_of_each([axis.before for axis in axes])):
        sender[np.ix_(*(axis.before[pe] for axis in axes))] = pe
    lacking = np.zeros(shape, dtype=bool)
    for pe in _first_of_each([side for axis in axes for side in (axis.after, axis.before)]):
        wanted = [np.flatnonzero(axis.after[pe]) for axis in axes]
        missing = np.ones(tuple(len(each) for each in wanted), dtype=bool)
        missing[np.ix_(*(axis.before[pe][each] for axis, each in zip(axes, wanted, strict=True)))] = False
        lacking[np.ix_(*wanted)] |= missing
    return lacking, sender


def _first_of_each(masks: list[BoolArray]) -> list[int]:
    """Of PEs that hold the same the lowest, and none that holds nothing; in order."""
    packed = np.ascontiguousarray(np.packbits(np.concatenate(masks, axis=1), axis=1))
    seen: dict[bytes, int] = {}
    for pe in np.flatnonzero(masks[0].any(axis=1)).tolist():
        seen.setdefault(packed[pe].tobytes(), pe)
    return list(seen.values())


def _axis(before: Dim, after: Dim, num_pes: int) -> Axis:
    if isinstance(before, Residues) or isinstance(after, Residues):
        strides = {
            each for dim in (before, after) if isinstance(dim, Residues) for each in np.unique(dim.stride).tolist()
        }
        period = min(lcm(*strides), before.size)
        atoms = np.arange(period, dtype=np.int64)
        sizes = held_tokens(before.size, atoms, period)
        return Axis(sizes, *(_of_residues(dim, atoms, num_pes) for dim in (before, after)))
    cuts = np.unique(np.concatenate(([0, before.size], before.first, before.last, after.first, after.last)))
    return Axis(np.diff(cuts), *(_of_spans(dim, cuts, num_pes) for dim in (before, after)))


def _of_residues(dim: Dim, atoms: IntArray, num_pes: int) -> BoolArray:
    if isinstance(dim, Spans):  # nowhere
        return np.zeros((num_pes, len(atoms)), dtype=bool)
    mask: BoolArray = atoms[None, :] % np.reshape(dim.stride, (-1, 1)) == dim.residue[:, None]
    return mask


def _of_spans(dim: Dim, cuts: IntArray, num_pes: int) -> BoolArray:
    assert isinstance(dim, Spans)
    mask = np.zeros((num_pes, len(cuts) - 1), dtype=bool)
    firsts, lasts = (np.searchsorted(cuts, each).tolist() for each in (dim.first, dim.last))
    for pe, first, last in zip(dim.pe.tolist(), firsts, lasts, strict=True):
        mask[pe, first:last] = True
    return mask


def _nowhere(dim: Dim) -> Spans:
    nothing = np.zeros(0, dtype=np.int64)
    return Spans(dim.size, nothing, nothing, nothing)


def _inner_bits(sizes: IntArray, dtype: Dtype) -> IntArray:
    """Bits of each piece of a row, with a scale for every group it begins."""
    if dtype.group_size is None:
        return sizes * dtype.bits
    per_group = SCALE_BITS + (dtype.bits if dtype.zero_point else 0)
    return sizes * dtype.bits + ceil_div(sizes, dtype.group_size) * per_group


def _summed(mask: BoolArray, bits: IntArray) -> IntArray:
    """(PEs,) bits of the atoms each PE holds."""
    sums = np.where(mask.all(axis=1), bits.sum(), 0)
    some = np.flatnonzero((sums == 0) & mask.any(axis=1))
    row, atom = np.nonzero(mask[some])
    sums[some] = np.bincount(row, weights=bits[atom], minlength=len(some)).astype(np.int64)
    return sums


def _product(factors: list[npt.NDArray[Any]]) -> IntArray:
    product: IntArray = reduce(np.multiply, factors)
    return product
