"""Arbiters of channels that several ask for: first come first served (the contract), in turn, or by rank."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(order=True, slots=True)
class Request:
    """A request that waits; `arrived` counts the requests of its channel in the order in which they came.

    Of those that come in one cycle the earlier operator in program order comes first, then the root, then the lower
    PE (`rank`); the root's own messages of one operator come in the order of their receivers.
    """

    arrived: int
    rank: int = field(compare=False)
    busy_cycles: int = field(compare=False)
    granted: Callable[[int], None] = field(compare=False)


class Arbiter(Protocol):
    """The requests that wait for a channel, added as they come, and the choice of the next one."""

    def add(self, request: Request) -> None:
        """Adds a request that waits from now on."""

    def take(self) -> Request:
        """Removes and returns the next request."""

    def __len__(self) -> int:
        """Number of requests that wait."""
        ...


class Fifo:
    """First come, first served."""

    def __init__(self) -> None:
        self._waiting: deque[Request] = deque()

    def add(self, request: Request) -> None:
        """Adds a request that waits from now on."""
        self._waiting.append(request)

    def take(self) -> Request:
        """Removes and returns the request that came first."""
        return self._waiting.popleft()

    def __len__(self) -> int:
        """Number of requests that wait."""
        return len(self._waiting)


class Priority:
    """The root first, then the lower PE; of one sender first come, first served."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Request]] = []

    def add(self, request: Request) -> None:
        """Adds a request that waits from now on."""
        heapq.heappush(self._waiting, (request.rank, request))

    def take(self) -> Request:
        """Removes and returns the request of the lowest rank: the root's, else the lowest PE's."""
        return heapq.heappop(self._waiting)[1]

    def __len__(self) -> int:
        """Number of requests that wait."""
        return len(self._waiting)


class RoundRobin:
    """One request of each sender in turn: the root, then the PEs upwards; of one sender first come, first served."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[Request]] = {}
        self._last = -2  # before the root, whose rank is -1

    def add(self, request: Request) -> None:
        """Adds a request that waits from now on."""
        self._waiting.setdefault(request.rank, deque()).append(request)

    def take(self) -> Request:
        """Removes and returns the first request of the next sender after the one that was served last."""
        later = [rank for rank in self._waiting if rank > self._last]
        self._last = min(later or self._waiting)
        queue = self._waiting[self._last]
        request = queue.popleft()
        if not queue:
            del self._waiting[self._last]
        return request

    def __len__(self) -> int:
        """Number of requests that wait."""
        return sum(map(len, self._waiting.values()))


FIFO = "fifo"
ARBITERS: dict[str, Callable[[], Arbiter]] = {FIFO: Fifo, "round_robin": RoundRobin, "priority": Priority}
