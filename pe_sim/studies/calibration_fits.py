"""Fits latency and bandwidth: takes measured collectives, gives a line for each number of devices and over all.

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
from typing import Any

import numpy as np
import numpy.typing as npt

from pe_sim.config.galvatron_profiles import GalvatronProfiles, Kind, Measurement
from pe_sim.errors import InputError

__all__ = ["Fit", "Point", "fits_of", "ring_steps", "wire_share"]

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement beside its fit; seconds, or bytes per second of a rate."""

    measured: Measurement
    fitted: float

    @property
    def relative_error(self) -> float:
        """Fitted over measured, less 1."""
        return self.fitted / self.measured.value - 1


@dataclass(frozen=True, slots=True)
class Fit:
    """Latency and bandwidth of one kind of collective.

    Args:
        kind: of collective, or of rate.
        devices: how many took part; None: all numbers of devices together.
        latency_seconds: of the whole collective; over all numbers of devices the start-up a; None: not known.
        step_seconds: latency of each step of a ring, L; None of a single number of devices.
        bytes_per_second: bandwidth of a device, B.
        points: the measurements with what the fit makes of them.
    """

    kind: Kind
    devices: int | None
    latency_seconds: float | None
    step_seconds: float | None
    bytes_per_second: float
    points: tuple[Point, ...]

    def seconds(self, num_bytes: float, devices: int) -> float:
        """The fitted time of a collective; not of a rate."""
        latency = (self.latency_seconds or 0.0) + ring_steps(self.kind, devices) * (self.step_seconds or 0.0)
        return latency + wire_share(self.kind, devices) * num_bytes / self.bytes_per_second

    @property
    def worst(self) -> Point:
        """The point with the largest relative error."""
        return max(self.points, key=lambda point: abs(point.relative_error))

    @property
    def r_squared(self) -> float | None:
        """1 less the squares of the errors over those about the mean; None where all that was measured is the same."""
        measured = np.array([point.measured.value for point in self.points])
        about = float(np.sum((measured - measured.mean()) ** 2))
        errors = measured - np.array([point.fitted for point in self.points])
        return 1.0 - float(np.sum(errors**2)) / about if about > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
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
    """What of a collective's bytes each device has to send; of a rate 1."""
    if kind.is_rate:
        return 1.0
    return (2 if kind is Kind.ALL_REDUCE else 1) * (devices - 1) / devices


def ring_steps(kind: Kind, devices: int) -> int:
    """Messages one after the other in a ring; of a rate 0."""
    if kind.is_rate:
        return 0
    return (2 if kind is Kind.ALL_REDUCE else 1) * (devices - 1)


def fits_of(profiles: GalvatronProfiles) -> tuple[Fit, ...]:
    """A fit of each kind and number of devices, after them one over all numbers of devices of the kind.

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
    """Of one number of devices, or with the steps of a ring over all (`devices` None)."""
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
    """The factors >= 0 of the columns with the least sum of squared relative errors."""
    from scipy.optimize import nnls

    relative = columns / measured[:, np.newaxis]
    lengths = np.linalg.norm(relative, axis=0)  # bytes and seconds differ by many powers of ten
    found, _ = nnls(relative / lengths, np.ones_like(measured))
    return np.asarray(found / lengths, dtype=np.float64)
