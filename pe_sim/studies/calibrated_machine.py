"""A calibration as a machine: takes fits, gives settings of an array's bus and tree, and of the links of a system.

Calibrated is the all-reduce over the most devices that were measured, n: alpha and B of its fit.

Bus and tree. An all-reduce of S bytes is a reduction up the tree, then a broadcast on the bus, D (lt + k) + beats(S)
and w + l + beats(S) (machine model, section 3). Measured was alpha + 2 (n - 1) / n * S / B, and its halves are alike: a
reduce-scatter and an all-gather in a ring. So bus and tree each take

    width = B * n / (n - 1),    D (lt + k) = w + l = alpha / 2,

with the array's own combine k and overhead w; an array of any number of PEs then takes as long for an all-reduce of one
dtype as the n devices did. The request to the arbiter is 0: what was measured has it in it.

Links. In a ring each of the 2 (n - 1) messages has S / n bytes: width B, latency alpha / (2 (n - 1)). Where no time of
an all-reduce was measured, links have the point-to-point rate, and their latency is not known.

Widths are rounded down to whole bytes a cycle, at least 1; latencies to the nearest cycle. What an array cannot have is
settled where one is made of them.

Overlap. A coefficient c says that communication takes c times as long while computation runs. The timing contract has
no such factor. So widths are given twice: of B for overlap 0, where nothing overlaps, and of B / c for overlap 1 to 3.
There B / c holds for every message, also for one that overlaps with nothing: a bus has one width. For such a message it
is a bound from above on its time. Latencies stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from pe_sim.config.array import ArrayConfig
from pe_sim.config.galvatron_profiles import Kind
from pe_sim.config.network import GraphNetwork
from pe_sim.errors import InputError
from pe_sim.studies.calibration_fits import Fit, ring_steps

__all__ = ["ARRAY", "LINKS", "Machine", "Setting", "machines_of"]

ARRAY: Final = "array"
LINKS: Final = "links"
_ARITHMETIC: Final = 1e-9  # a width so little below a whole number is that number
_ALL_LEVELS: Final = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of a machine.

    Args:
        path: the dotted path.
        value: a whole number, or one for each level of the tree.
        asked: what the fit asks for, before rounding; of a list for its sum. None: the value follows from no fit.
    """

    path: str
    value: int | tuple[int, ...]
    asked: float | None = None

    @property
    def total(self) -> int:
        """The value, or the sum of a list's."""
        return sum(self.value) if isinstance(self.value, tuple) else self.value

    @property
    def rounding(self) -> float:
        """What rounding changed, relative to what was asked for; 0 where nothing above 0 was."""
        return self.total / self.asked - 1 if self.asked and self.asked > 0 else 0.0

    @property
    def text(self) -> str:
        """As on the command line: --set network.bus.bytes_per_cycle=64."""
        value = f"[{','.join(map(str, self.value))}]" if isinstance(self.value, tuple) else str(self.value)
        return f"--set {self.path}={value}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return {"path": self.path, "value": value, "asked": self.asked, "rounding": self.rounding}


@dataclass(frozen=True, slots=True)
class Machine:
    """Settings of an array's bus and tree, or of the links of a system.

    Args:
        target: "array" or "links".
        overlaps: the overlap levels they are for.
        bytes_per_second: bandwidth they are made from.
        source: the fit they are made from.
        settings: in the order of the file.
    """

    target: str
    overlaps: tuple[int, ...]
    bytes_per_second: float
    source: Fit
    settings: tuple[Setting, ...]

    def holds(self, target: str, overlap: int) -> bool:
        """Whether these are for this target at this overlap level."""
        return self.target == target and overlap in self.overlaps

    def overrides(self) -> dict[str, object]:
        """Values by dotted path, as `load_array` takes them."""
        return {s.path: list(s.value) if isinstance(s.value, tuple) else s.value for s in self.settings}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "target": self.target,
            "overlap_levels": list(self.overlaps),
            "bytes_per_second": self.bytes_per_second,
            "from": {"kind": self.source.kind.value, "devices": self.source.devices},
            "settings": [setting.to_dict() for setting in self.settings],
        }


@dataclass(frozen=True, slots=True)
class _BusTree:
    """What of a bus and a tree is not calibrated."""

    levels: int
    combine_cycles: int
    overhead_cycles: int
    own: tuple[Setting, ...]


def machines_of(
    fits: tuple[Fit, ...], coefficient: float | None, clock_ghz: float, array: ArrayConfig | None
) -> tuple[Machine, ...]:
    """Bus and tree of an array, then the links of a system, each at overlap 0 and at overlap 1 to 3.

    Args:
        fits: of all kinds.
        coefficient: how many times as long what overlaps takes; None or 1: all overlap levels are alike.
        clock_ghz: whose cycles are counted.
        array: its bus and tree; None: those of an array with a PE for each device, and nothing but what was measured.

    Raises:
        InputError: the array has no bus and tree, or no messages.
    """
    machines: list[Machine] = []
    by = _most_devices(fits, Kind.ALL_REDUCE)
    for_array = by or _most_devices(fits, Kind.NEIGHBOURS) or _most_devices(fits, Kind.STRIDED)
    for_links = by or _point_to_point(fits) or for_array
    hertz = clock_ghz * 1e9
    if array is not None:
        _check_array(array)
    if for_array is not None:
        fixed = _fixed_of(array, for_array.devices or 2)
        for overlaps, slower in _overlaps(coefficient):
            settings = _bus_and_tree(for_array, fixed, slower, hertz)
            machines.append(Machine(ARRAY, overlaps, for_array.bytes_per_second / slower, for_array, settings))
    if for_links is not None:
        for overlaps, slower in _overlaps(coefficient):
            settings = _links(for_links, slower, hertz)
            machines.append(Machine(LINKS, overlaps, for_links.bytes_per_second / slower, for_links, settings))
    return tuple(machines)


def _most_devices(fits: tuple[Fit, ...], kind: Kind) -> Fit | None:
    return max(
        (fit for fit in fits if fit.kind is kind and fit.devices is not None),
        key=lambda fit: fit.devices or 0,
        default=None,
    )


def _point_to_point(fits: tuple[Fit, ...]) -> Fit | None:
    """The rate over all numbers of stages; it stands after those of each."""
    return next((fit for fit in reversed(fits) if fit.kind is Kind.POINT_TO_POINT), None)


def _overlaps(coefficient: float | None) -> tuple[tuple[tuple[int, ...], float], ...]:
    if coefficient is None or coefficient == 1:
        return ((_ALL_LEVELS, 1.0),)
    return ((_ALL_LEVELS[:1], 1.0), (_ALL_LEVELS[1:], coefficient))


def _check_array(array: ArrayConfig) -> None:
    if isinstance(array.network, GraphNetwork):
        raise InputError(
            f"{array.name} has no bus and no tree to calibrate",
            path="network.kind",
            given=array.network.kind,
            expected="bus_tree",
            hint="leave the array out, and set network.link.* to what is printed for links",
        )
    if array.num_pes < 2:
        raise InputError(
            f"{array.name} has no messages to calibrate", path="num_pes", given=array.num_pes, expected="at least 2"
        )


def _fixed_of(array: ArrayConfig | None, devices: int) -> _BusTree:
    if array is None:
        own = (
            Setting("num_pes", devices),
            Setting("network.bus.overhead_cycles", 0),
            Setting("network.tree.arity", 2),
            Setting("network.tree.combine_cycles", 0),
        )
        return _BusTree((devices - 1).bit_length(), 0, 0, own)
    bus, tree = array.bus_tree.bus, array.bus_tree.tree
    return _BusTree(tree.num_levels, tree.combine_cycles, bus.overhead_cycles, ())


def _bus_and_tree(fit: Fit, fixed: _BusTree, slower: float, hertz: float) -> tuple[Setting, ...]:
    devices = fit.devices or 2
    rate = fit.bytes_per_second / slower * devices / (devices - 1)
    settings = [_rate("network.bus.bytes_per_cycle", rate / hertz), _rate("network.tree.bytes_per_cycle", rate / hertz)]
    if fit.latency_seconds is not None:
        half = fit.latency_seconds * hertz / 2
        flight, climb = half - fixed.overhead_cycles, half - fixed.levels * fixed.combine_cycles
        settings.insert(1, _latency("network.bus.latency_cycles", flight))
        settings.insert(2, Setting("network.bus.request_cycles", 0))
        settings.append(_climb(climb, fixed.levels))
    return (*fixed.own, *settings)


def _climb(cycles: float, levels: int) -> Setting:
    """Hops of the tree that add up to so many cycles, at least 1 each; what is left over goes to the upper ones."""
    each, more = divmod(max(levels, round(cycles)), levels)
    hops = tuple(each + (level >= levels - more) for level in range(levels))
    return Setting("network.tree.latency_cycles", hops, cycles)


def _links(fit: Fit, slower: float, hertz: float) -> tuple[Setting, ...]:
    width = _rate("links.link.bytes_per_cycle", fit.bytes_per_second / slower / hertz)
    if fit.latency_seconds is None or fit.devices is None:
        return (width,)
    step = fit.latency_seconds * hertz / ring_steps(fit.kind, fit.devices)
    return (width, _latency("links.link.latency_cycles", step))


def _rate(path: str, asked: float) -> Setting:
    return Setting(path, max(1, math.floor(asked * (1 + _ARITHMETIC))), asked)


def _latency(path: str, asked: float) -> Setting:
    return Setting(path, max(0, round(asked)), asked)
