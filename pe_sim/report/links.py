"""Links of a critical path; those of layers that repeat each other are kept once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import overload


@dataclass(frozen=True, slots=True)
class Link:
    """One stretch of the critical path.

    Args:
        order, layer, name, operator: of the stage.
        resource: what it was limited by; for matrix stages pe_memory or pe_matrix; `wait` beside the stage's own work
            where the trace does not tell what was waited for.
        tag: of a message or a reduction, else empty.
        pe: the PE it happened on; None for the network and the root.
        start, end: cycles.
        wait_cycles: how many at its beginning only waited: for the request to reach the arbiter, or all of `wait`.
        channel: on a graph of channels, the name of the one it was on; else empty.
    """

    order: int
    layer: int | None
    name: str
    operator: str
    resource: str
    tag: str
    pe: int | None
    start: int
    end: int
    wait_cycles: int = 0
    channel: str = ""

    @property
    def cycles(self) -> int:
        """Its length."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Shift:
    """How far a repetition is from the one before it."""

    orders: int
    layers: int
    cycles: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Some links in order of time, `times` times, each `shift` behind the last; `links` are of the first."""

    links: tuple[Link, ...]
    times: int = 1
    shift: Shift = Shift(0, 0, 0)

    def __len__(self) -> int:
        """How many links there are in all."""
        return len(self.links) * self.times

    def link(self, number: int) -> Link:
        """One of them."""
        time, at = divmod(number, len(self.links))
        link = self.links[at]
        return link if not time else shifted(link, self.shift, time)


class Links(Sequence[Link]):
    """Links in order of time, each written out when it is asked for."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = tuple(pieces)
        self._first = [0, *accumulate(len(piece) for piece in pieces)]

    def __len__(self) -> int:
        """How many links there are."""
        return self._first[-1]

    @overload
    def __getitem__(self, number: int) -> Link: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[Link, ...]: ...

    def __getitem__(self, number: int | slice) -> Link | tuple[Link, ...]:
        """One link, or some."""
        if isinstance(number, slice):
            return tuple(self[each] for each in range(len(self))[number])
        number = range(len(self))[number]
        at = bisect_right(self._first, number) - 1
        return self.pieces[at].link(number - self._first[at])


def counted(links: Sequence[Link]) -> Iterator[tuple[Link, int]]:
    """Links with how often each is there, at other cycles and in other layers; every other figure is the same."""
    if isinstance(links, Links):
        for piece in links.pieces:
            yield from ((link, piece.times) for link in piece.links)
    else:
        yield from ((link, 1) for link in links)


def shifted(link: Link, shift: Shift, times: int) -> Link:
    """The same link so many repetitions later."""
    cycles, layer = times * shift.cycles, link.layer
    return replace(
        link,
        order=link.order + times * shift.orders,
        layer=None if layer is None else layer + times * shift.layers,
        start=link.start + cycles,
        end=link.end + cycles,
    )
