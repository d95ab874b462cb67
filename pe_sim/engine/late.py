"""Calls at a later cycle, before or after everything else that happens in that cycle."""

from __future__ import annotations

from collections.abc import Callable

from simpy import Environment, Event
from simpy.events import NORMAL, EventPriority

AFTER_ALL = EventPriority(1 << 256)  # when every request of its cycle has arrived


def turn_of(order: int, rank: int, index: int) -> EventPriority:
    """When a request arrives within its cycle: after all else, by operator, rank (from -1 on) and index."""
    return EventPriority(NORMAL + 1 + (order << 128) + (rank + 1 << 64) + index)


def call_at(env: Environment, cycle: int, action: Callable[[], None], priority: EventPriority = NORMAL) -> None:
    """Runs `action` at `cycle` (not before now)."""
    event = Event(env)
    event._ok = True
    event._value = None
    assert event.callbacks is not None
    event.callbacks.append(lambda _: action())
    env.schedule(event, priority, cycle - int(env.now))


def when_all(events: list[Event], action: Callable[[], None]) -> None:
    """Runs `action` in the cycle in which the last of `events` happens."""
    remaining = len(events)

    def one_done(_: Event) -> None:
        nonlocal remaining
        remaining -= 1
        if remaining == 0:
            action()

    for event in events:
        if event.callbacks is None:
            remaining -= 1
        else:
            event.callbacks.append(one_done)
    if remaining == 0:
        action()
