"""When data is there: on ranges of PEs, and at hubs (the root's copies of groups, or joints)."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from simpy import Environment, Event


class Delivery:
    """Readiness of data on PEs: one event a target range, and one for the head of what is streamed to it."""

    def __init__(
        self, env: Environment, order: int, target_of_pe: list[int], num_targets: int, *, streams: bool
    ) -> None:
        self.order = order
        self.events = [Event(env) for _ in range(num_targets)]
        self.heads = [Event(env) for _ in range(num_targets)] if streams else self.events
        self.tail_at = [0] * num_targets
        self._target_of_pe = target_of_pe

    def event_of(self, pe: int) -> Event:
        """The event that `pe`'s data is there."""
        return self.events[self._target_of_pe[pe]]

    def head_of(self, pe: int) -> Event:
        """The event that the head of `pe`'s data is there."""
        return self.heads[self._target_of_pe[pe]]

    def wait_for_tail(self, env: Environment, pe: int, tail_cycles: int) -> Generator[Event, Any, None]:
        """Waits until `tail_cycles` after the tail, if the data was streamed."""
        if self.heads is self.events:
            return
        event = self.event_of(pe)
        if event.callbacks is not None:
            yield event
        left = self.tail_at[self._target_of_pe[pe]] + tail_cycles - int(env.now)
        if left > 0:
            yield env.timeout(left)

    def pes_of(self, target: int) -> list[int]:
        """The PEs of one target."""
        return [pe for pe, index in enumerate(self._target_of_pe) if index == target]


class HubSource:
    """Readiness of data at hubs (the root's copies or joints): one event each."""

    def __init__(self, env: Environment, order: int, num_hubs: int) -> None:
        self.order = order
        self.events = [Event(env) for _ in range(num_hubs)]
        self._tails: dict[int, int] = {}
        self._watchers: dict[int, list[Callable[[int], None]]] = {}

    def event_of(self, hub: int) -> Event:
        """The event that hub's data is there; a single job serves every group."""
        return self.events[hub if len(self.events) > 1 else 0]

    def watch_tail(self, hub: int, watcher: Callable[[int], None]) -> None:
        """Tells `watcher` the cycle of the hub's tail as soon as it is known, before its head is there."""
        if hub in self._tails:
            watcher(self._tails[hub])
        else:
            self._watchers.setdefault(hub, []).append(watcher)

    def foretell_tail(self, hub: int, cycle: int) -> None:
        """The hub's reduction has begun, and so its last beat comes at `cycle`."""
        self._tails[hub] = cycle
        for watcher in self._watchers.pop(hub, []):
            watcher(cycle)
