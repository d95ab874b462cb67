"""A strict reader of Chrome trace JSON: what a viewer may assume of a file, checked event by event."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

KEYS = {
    "M": {"ph", "pid", "tid", "name", "args"},
    "X": {"ph", "pid", "tid", "name", "cat", "ts", "dur", "args"},
    "C": {"ph", "pid", "name", "ts", "args"},
    "s": {"ph", "pid", "tid", "name", "cat", "id", "ts"},
    "f": {"ph", "pid", "tid", "name", "cat", "id", "ts", "bp"},
}
OPTIONAL = {"X": {"cname"}}
Place = tuple[int, int]  # process, thread


@dataclass
class ChromeTrace:
    """Events by kind; slices by track, as they stand in the file."""

    other: dict[str, Any]
    processes: dict[int, str] = field(default_factory=dict)
    threads: dict[Place, str] = field(default_factory=dict)
    slices: dict[Place, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    counters: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    flows: dict[int, dict[str, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))

    def track(self, name: str) -> list[dict[str, Any]]:
        """The slices of the track of this name; none if there is no such track."""
        found = [place for place, its in self.threads.items() if its == name]
        assert len(found) <= 1
        return self.slices[found[0]] if found else []

    def tracks(self, group: str) -> dict[str, list[dict[str, Any]]]:
        """The tracks of a process by name, in the order of the file."""
        return {
            name: self.slices[place]
            for place, name in self.threads.items()
            if self.processes[place[0]].partition(":")[0] == group
        }


def nanoseconds(microseconds: float) -> int:
    """Times are whole nanoseconds."""
    assert isinstance(microseconds, int | float)
    assert abs(microseconds * 1000 - round(microseconds * 1000)) < 1e-3
    assert microseconds >= 0
    return round(microseconds * 1000)


def parse(text: str) -> ChromeTrace:
    """Reads a file and checks all that can be said of any file."""
    whole = json.loads(text, parse_constant=_refuse)
    assert set(whole) == {"displayTimeUnit", "otherData", "traceEvents"}
    assert whole["displayTimeUnit"] == "ns"
    found = ChromeTrace(whole["otherData"])
    for event in whole["traceEvents"]:
        kind = event["ph"]
        assert KEYS[kind] <= set(event) <= KEYS[kind] | OPTIONAL.get(kind, set()), event
        assert isinstance(event["pid"], int)
        assert isinstance(event["name"], str)
        assert event["name"]
        _TAKE[kind](found, event)
    _check_places(found)
    for slices in found.slices.values():
        _check_nesting(slices)
    for events in found.counters.values():
        _check_counter(events)
    for ends in found.flows.values():
        _check_flow(found, ends)
    return found


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def _metadata(found: ChromeTrace, event: dict[str, Any]) -> None:
    place = (event["pid"], event["tid"])
    if event["name"] == "process_name":
        assert event["pid"] not in found.processes
        found.processes[event["pid"]] = event["args"]["name"]
    elif event["name"] == "thread_name":
        assert place not in found.threads
        found.threads[place] = event["args"]["name"]
    else:
        assert event["name"] in ("process_sort_index", "thread_sort_index")
        assert isinstance(event["args"]["sort_index"], int)


def _slice(found: ChromeTrace, event: dict[str, Any]) -> None:
    args = event["args"]
    assert args["cycles"] == args["end_cycle"] - args["start_cycle"] >= 0
    assert nanoseconds(event["dur"]) >= 0
    found.slices[event["pid"], event["tid"]].append(event)


def _counted(found: ChromeTrace, event: dict[str, Any]) -> None:
    found.counters[event["name"]].append(event)


def _flow(found: ChromeTrace, event: dict[str, Any]) -> None:
    assert event["ph"] not in found.flows[event["id"]]
    found.flows[event["id"]][event["ph"]] = event


_TAKE = {"M": _metadata, "X": _slice, "C": _counted, "s": _flow, "f": _flow}


def _check_places(found: ChromeTrace) -> None:
    assert set(found.slices) <= set(found.threads)
    assert {process for process, _ in found.threads} <= set(found.processes)
    assert Counter(thread for _, thread in found.threads).most_common(1)[0][1] == 1  # one number, one track
    assert len(set(found.threads.values())) == len(found.threads)


def _check_nesting(slices: list[dict[str, Any]]) -> None:
    """Sorted by start; a slice ends within the one it begins in, or begins when that has ended."""
    opened: list[int] = []
    reached = 0
    for event in slices:
        start, duration = nanoseconds(event["ts"]), nanoseconds(event["dur"])
        assert start >= reached
        reached = start
        while opened and opened[-1] <= start:
            opened.pop()
        assert not opened or start + duration <= opened[-1], event
        opened.append(start + duration)


def _check_counter(events: list[dict[str, Any]]) -> None:
    times = [nanoseconds(event["ts"]) for event in events]
    assert times == sorted(times)
    assert len({event["pid"] for event in events}) == 1
    units = {unit for event in events for unit in event["args"]}
    assert len(units) == 1
    assert all(value >= 0 for event in events for value in event["args"].values())


def _check_flow(found: ChromeTrace, ends: dict[str, dict[str, Any]]) -> None:
    """Both ends are there, in a slice each, and time goes forwards."""
    assert set(ends) == {"s", "f"}
    assert ends["f"]["bp"] == "e"
    assert nanoseconds(ends["s"]["ts"]) <= nanoseconds(ends["f"]["ts"])
    for event in ends.values():
        time = nanoseconds(event["ts"])
        mine = found.slices[event["pid"], event["tid"]]
        spans = [(nanoseconds(each["ts"]), nanoseconds(each["dur"])) for each in mine]
        assert any(start <= time < start + duration for start, duration in spans), event
