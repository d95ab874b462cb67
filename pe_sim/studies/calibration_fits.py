"""Fits latency and bandwidth to measured collectives: a line for each number of devices, and the machine's settings.

The model of a collective of S bytes over n devices, for each number of devices by itself:

    t = alpha(n) + x / B,    x = 2 (n - 1) / n * S of an all-reduce, (n - 1) / n * S of an all-to-all,

with x the bytes that every device has to send whatever the algorithm (nccl-tests, doc/PERFORMANCE.md). Over all numbers
of devices together the latency is that of a ring: a start-up once, and a latency for each of its steps,

    alpha(n) = a + s * L,    s = 2 (n - 1) of an all-reduce, n - 1 of an all-to-all.

Fitted are a, L, 1 / B >= 0 by least squares on the relative errors (each equation divided by its measured time), so
that a short message counts as much as a long one. With one size alone, latency and bandwidth cannot be told apart: all
of it is taken for bandwidth, and the latency is not known.

Rates that were measured as such are means over sizes with the latencies in them. They are shown beside the fits; over
all numbers of devices the same criterion gives B = sum(b^2) / sum(b).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.plans.galvatron_profiles import GalvatronProfiles, Kind, Measurement
from pe_sim.errors import InputError

__all__ = ["ARRAY", "LINKS", "Fit", "Machine", "Point", "Setting", "fits_of", "machines_of", "ring_steps", "wire_share"]


_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """A measurement and its fitted value; in seconds, or bytes per second for a rate."""

    measured: Measurement
    fitted: float

    @property
    def relative_error(self) -> float:
        """Relative error of the fitted value: fitted over measured, less 1."""
        return self.fitted / self.measured.value - 1


@dataclass(frozen=True, slots=True)
class Fit:
    """The fitted latency and bandwidth of one kind of collective.

    Args:
        kind: the kind of collective or rate.
        devices: number of devices; None: all numbers of devices together.
        latency_seconds: latency of the whole collective; over all numbers of devices the start-up a; None: unknown.
        step_seconds: latency of each step of a ring, L; None for a single number of devices.
        bytes_per_second: bandwidth of a device, B.
        points: the measurements with their fitted values.
    """

    kind: Kind
    devices: int | None
    latency_seconds: float | None
    step_seconds: float | None
    bytes_per_second: float
    points: tuple[Point, ...]

    def seconds(self, num_bytes: float, devices: int) -> float:
        """The fitted time of a collective in seconds; has no meaning for a rate."""
        latency = (self.latency_seconds or 0.0) + ring_steps(self.kind, devices) * (self.step_seconds or 0.0)
        return latency + wire_share(self.kind, devices) * num_bytes / self.bytes_per_second

    @property
    def worst(self) -> Point:
        """The point with the largest relative error."""
        return max(self.points, key=lambda point: abs(point.relative_error))

    @property
    def r_squared(self) -> float | None:
        """The coefficient of determination R2 of the fit; None if all measured values are the same."""
        measured = np.array([point.measured.value for point in self.points])
        about = float(np.sum((measured - measured.mean()) ** 2))
        errors = measured - np.array([point.fitted for point in self.points])
        return 1.0 - float(np.sum(errors**2)) / about if about > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """The fit as a JSON-ready dict."""
        return {
            "kind": self.kind.value,
            "devices": self.devices,
            "latency_seconds": self.latency_seconds,
            "step_latency_seconds": self.step_seconds,
            "bytes_per_second": self.bytes_per_second,
            "r_squared": self.r_squared,
            "max_relative_error": abs(self.worst.relative_error),
            "points": [
                {
                    "devices": point.measured.devices,
                    "bytes": point.measured.num_bytes,
                    "measured": point.measured.value,
                    "fitted": point.fitted,
                    "relative_error": point.relative_error,
                }
                for point in self.points
            ],
        }


def wire_share(kind: Kind, devices: int) -> float:
    """Bytes that each device has to send, over the collective's bytes; 1 for a rate."""
    if kind.is_rate:
        return 1.0
    return (2 if kind is Kind.ALL_REDUCE else 1) * (devices - 1) / devices


def ring_steps(kind: Kind, devices: int) -> int:
    """Number of steps of the collective in a ring; 0 for a rate."""
    if kind.is_rate:
        return 0
    return (2 if kind is Kind.ALL_REDUCE else 1) * (devices - 1)


def fits_of(profiles: GalvatronProfiles) -> tuple[Fit, ...]:
    """A fit for each kind and number of devices, followed by one over all numbers of devices of the kind.

    Raises:
        InputError: times that do not grow with the size.
    """
    source = ", ".join(profiles.sources)
    fits: list[Fit] = []
    for kind in Kind:
        of_kind = [measured for measured in profiles.measurements if measured.kind is kind]
        numbers = sorted({measured.devices for measured in of_kind})
        fit = _rate_fit if kind.is_rate else _time_fit
        fits += [fit([m for m in of_kind if m.devices == devices], devices, source) for devices in numbers]
        if len(numbers) > 1 and (kind.is_rate or len(of_kind) > 2):
            fits.append(fit(of_kind, None, source))
    return tuple(fits)


def _rate_fit(measured: list[Measurement], devices: int | None, source: str) -> Fit:
    rates = [one.value for one in measured]
    rate = math.fsum(value * value for value in rates) / math.fsum(rates)
    points = tuple(Point(one, rate) for one in measured)
    return Fit(measured[0].kind, devices, None, None, rate, points)


def _time_fit(measured: list[Measurement], devices: int | None, source: str) -> Fit:
    """The fit of times over one number of devices, or (None) over all, with the steps of a ring."""
    kind = measured[0].kind
    wire = np.array([wire_share(kind, one.devices) * float(one.num_bytes or 0) for one in measured])
    steps = np.array([float(ring_steps(kind, one.devices)) for one in measured])
    one_size = len(set(wire.tolist())) == 1
    columns = [wire] if one_size else [np.ones_like(wire), wire]
    columns += [steps] if devices is None else []
    found = _least_squares(np.stack(columns, axis=1), np.array([one.value for one in measured]))
    per_byte = float(found[0 if one_size else 1])
    if per_byte == 0:
        raise InputError(
            "the times do not grow with the size, so that no bandwidth can be told from them",
            source=source,
            path=f"{kind} over {devices or 'all numbers of'} devices",
            given=[one.value for one in measured],
        )
    fitted = np.stack(columns, axis=1) @ found
    points = tuple(Point(one, float(value)) for one, value in zip(measured, fitted, strict=True))
    latency = None if one_size else float(found[0])
    return Fit(kind, devices, latency, float(found[-1]) if devices is None else None, 1 / per_byte, points)


def _least_squares(columns: _Floats, measured: _Floats) -> _Floats:
    """The factors >= 0 of the columns that minimise the sum of squared relative errors."""
    from scipy.optimize import nnls

    relative = columns / measured[:, np.newaxis]
    lengths = np.linalg.norm(relative, axis=0)  # bytes and seconds differ by many powers of ten
    found, _ = nnls(relative / lengths, np.ones_like(measured))
    return np.asarray(found / lengths, dtype=np.float64)


# ---- A calibration as a machine: takes fits, gives settings of an array's bus and tree, and of a system's links.
#
# Calibrated is the all-reduce over the most devices that were measured, n: alpha and B of its fit.
#
# Bus and tree. An all-reduce of S bytes is a reduction up the tree, then a broadcast on the bus, D (lt + k) + beats(S)
# and w + l + beats(S) (machine model, section 3). Measured was alpha + 2 (n - 1) / n * S / B, and its halves are alike:
# a reduce-scatter and an all-gather in a ring. So bus and tree each take
#
#     width = B * n / (n - 1),    D (lt + k) = w + l = alpha / 2,
#
# with the array's own combine k and overhead w; an array of any number of PEs then takes as long for an all-reduce of
# one dtype as the n devices did. The request to the arbiter is 0: what was measured has it in it.
#
# Links. In a ring each of the 2 (n - 1) messages has S / n bytes: width B, latency alpha / (2 (n - 1)). Where no time
# of an all-reduce was measured, links have the point-to-point rate, and their latency is not known.
#
# Widths are rounded down to whole bytes a cycle, at least 1; latencies to the nearest cycle. Values that an array
# cannot have are refused where an array is made of them.
#
# Overlap. A coefficient c says that communication takes c times as long while computation runs. The timing contract has
# no such factor. So widths are given twice: of B for overlap 0, where nothing overlaps, and of B / c for overlap 1 to
# 3. There B / c holds for every message, also for one that overlaps with nothing: a bus has one width. For such a
# message it gives an upper bound on its time. Latencies stay as they are.


ARRAY: Final = "array"
LINKS: Final = "links"
_ARITHMETIC: Final = 1e-9  # relative tolerance: a width so little below a whole number is that number
_ALL_LEVELS: Final = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a machine.

    Args:
        path: its dotted path.
        value: a whole number, or one for each level of the tree.
        asked: the fitted value before rounding (of a list, its sum); None: the value follows from no fit.
    """

    path: str
    value: int | tuple[int, ...]
    asked: float | None = None

    @property
    def total(self) -> int:
        """The value, or its sum if it is a list."""
        return sum(self.value) if isinstance(self.value, tuple) else self.value

    @property
    def rounding(self) -> float:
        """Relative change of the fitted value by rounding; 0 if no fitted value above 0 is known."""
        return self.total / self.asked - 1 if self.asked and self.asked > 0 else 0.0

    @property
    def text(self) -> str:
        """The setting as an option: --set network.bus.bytes_per_cycle=64."""
        value = f"[{','.join(map(str, self.value))}]" if isinstance(self.value, tuple) else str(self.value)
        return f"--set {self.path}={value}"

    def to_dict(self) -> dict[str, Any]:
        """The setting as a JSON-ready dict."""
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return {"path": self.path, "value": value, "asked": self.asked, "rounding": self.rounding}


@dataclass(frozen=True, slots=True)
class Machine:
    """Settings of an array's bus and tree, or of the links of a system.

    Args:
        target: "array" or "links".
        overlaps: the overlap levels that they hold for.
        bytes_per_second: the bandwidth that they are made from.
        source: the fit that they are made from.
        settings: the settings in the order of the file.
    """

    target: str
    overlaps: tuple[int, ...]
    bytes_per_second: float
    source: Fit
    settings: tuple[Setting, ...]

    def holds(self, target: str, overlap: int) -> bool:
        """Whether these settings are for this target at this overlap level."""
        return self.target == target and overlap in self.overlaps

    def overrides(self) -> dict[str, object]:
        """The values by dotted path, as `load_array` takes them."""
        return {s.path: list(s.value) if isinstance(s.value, tuple) else s.value for s in self.settings}

    def to_dict(self) -> dict[str, Any]:
        """The machine as a JSON-ready dict."""
        return {
            "target": self.target,
            "overlap_levels": list(self.overlaps),
            "bytes_per_second": self.bytes_per_second,
            "from": {"kind": self.source.kind.value, "devices": self.source.devices},
            "settings": [setting.to_dict() for setting in self.settings],
        }


@dataclass(frozen=True, slots=True)
class _BusTree:
    """The parts of a bus and a tree that are not calibrated."""

    levels: int
    combine_cycles: int
    overhead_cycles: int
    own: tuple[Setting, ...]


def machines_of(
    fits: tuple[Fit, ...], coefficient: float | None, clock_ghz: float, array: ArrayConfig | None
) -> tuple[Machine, ...]:
    """Settings of an array's bus and tree, then of a system's links, each at overlap 0 and at overlap 1 to 3.

    Args:
        fits: fits of all kinds.
        coefficient: how many times as long overlapped work takes; None or 1: all overlap levels are alike.
        clock_ghz: the clock in whose cycles latencies are counted.
        array: the array whose bus and tree are calibrated; None: one with a PE for each device, and no overhead or
            combining of its own.

    Raises:
        InputError: the array has no bus and tree, or is a single PE, which sends no messages.
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
    """The point-to-point fit over all numbers of stages (which comes last), or the only one; None if none."""
    return next((fit for fit in reversed(fits) if fit.kind is Kind.POINT_TO_POINT), None)


def _overlaps(coefficient: float | None) -> tuple[tuple[tuple[int, ...], float], ...]:
    if coefficient is None or coefficient == 1:
        return ((_ALL_LEVELS, 1.0),)
    return ((_ALL_LEVELS[:1], 1.0), (_ALL_LEVELS[1:], coefficient))


def _check_array(array: ArrayConfig) -> None:
    if array.network.is_graph:
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
    """The tree's hop latencies that add up to `cycles`, at least 1 each; a remainder goes to the upper levels."""
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
