"""Calibrates a machine from measured collectives: takes Galvatron's profiles, gives latencies, bandwidths, residuals.

`calibration_fits` has the model and how it is fitted, `calibrated_machine` what that makes of an array and of links.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from pe_sim._version import __version__
from pe_sim.config.array import ArrayConfig
from pe_sim.config.arrays import array_to_dict, as_array, load_array
from pe_sim.config.galvatron_profiles import (
    GalvatronProfiles,
    Kind,
    Profile,
    load_galvatron_profiles,
)
from pe_sim.errors import InputError
from pe_sim.studies.calibrated_machine import Machine, machines_of
from pe_sim.studies.calibration_fits import Fit, Point, fits_of

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Calibration", "calibrate"]

SCHEMA: Final = "pe-sim.calibration/1"
DEFAULT_CLOCK_GHZ: Final = 1.0
MAX_CLOCK_GHZ: Final = 1000.0
_COLUMNS: Final = (
    "kind",
    "devices",
    "bytes",
    "unit",
    "measured",
    "fitted",
    "relative_error",
    "fitted_over_all",
    "relative_error_over_all",
)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A machine as it was measured.

    Args:
        profiles: what was measured.
        clock_ghz: the clock whose cycles latencies are counted in.
        fits: of each kind and number of devices, and after them over all numbers of devices of the kind.
        machines: the same as settings of an array and of the links of a system.
        array: whose bus and tree are calibrated; None: those of an array of as many PEs as there were devices.
    """

    profiles: GalvatronProfiles
    clock_ghz: float
    fits: tuple[Fit, ...]
    machines: tuple[Machine, ...]
    array: ArrayConfig | None

    @property
    def overlap_coefficient(self) -> float | None:
        """How many times as long what overlaps takes; None: not measured."""
        return self.profiles.overlap_coefficient

    def fit(self, kind: Kind | str, devices: int | None = None) -> Fit:
        """The fit of a kind over so many devices; None: over all numbers of devices.

        Raises:
            InputError: there is none.
        """
        for found in self.fits:
            if found.kind == kind and found.devices == devices:
                return found
        known = ", ".join(f"{found.kind} over {found.devices or 'all'}" for found in self.fits)
        raise InputError("there is no such fit", given=f"{kind} over {devices or 'all'}", expected=f"one of {known}")

    def calibrated_array(self) -> ArrayConfig:
        """The array with the fitted bus and tree, those of its own overlap level.

        Raises:
            InputError: no array was given, no all-reduce was measured, or a setting is beyond what an array can have.
        """
        if self.array is None:
            raise InputError("there is no array to calibrate", path="array", hint="give one: calibrate(..., array=...)")
        chosen = [machine for machine in self.machines if machine.holds("array", self.array.overlap)]
        if not chosen:
            raise InputError(
                "no all-reduce was measured, and a bus and a tree are calibrated by one",
                source=", ".join(self.profiles.sources),
                expected="keys as allreduce_size_8_1MB_time or allreduce_size_8_consec_1",
            )
        changes = {**chosen[0].overrides(), "name": f"{self.array.name}-calibrated"}
        return load_array(array_to_dict(self.array), changes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, seconds and bytes per second."""
        return {
            "schema": SCHEMA,
            "pe_sim_version": __version__,
            "profiles": list(self.profiles.sources),
            "clock_ghz": self.clock_ghz,
            "array": self.array.name if self.array else None,
            "overlap_coefficient": self.overlap_coefficient,
            "fits": [fit.to_dict() for fit in self.fits],
            "machines": [machine.to_dict() for machine in self.machines],
            "layer_times": [
                {
                    "batch_size": time.batch_size,
                    "seq_len": time.seq_len,
                    "layers": list(time.layers),
                    "seconds_per_layer": time.seconds,
                }
                for time in self.profiles.layer_times
            ],
            "ignored": list(self.profiles.ignored),
        }

    def points(self) -> list[tuple[Point, Point | None]]:
        """Each measurement's point of its own fit, and that of the fit over all numbers of devices, if there is one."""
        over_all = {point.measured: point for fit in self.fits if fit.devices is None for point in fit.points}
        own = (point for fit in self.fits if fit.devices is not None for point in fit.points)
        return [(point, over_all.get(point.measured)) for point in own]

    def to_rows(self) -> list[dict[str, Any]]:
        """A row a measurement, with its fit and that over all numbers of devices."""
        rows = []
        for point, other in self.points():
            measured = point.measured
            rows.append(
                {
                    "kind": measured.kind.value,
                    "devices": measured.devices,
                    "bytes": measured.num_bytes,
                    "unit": "bytes/s" if measured.kind.is_rate else "s",
                    "measured": measured.value,
                    "fitted": point.fitted,
                    "relative_error": point.relative_error,
                    "fitted_over_all": other and other.fitted,
                    "relative_error_over_all": other and other.relative_error,
                }
            )
        return rows

    def to_frame(self) -> DataFrame:
        """The same as a pandas.DataFrame."""
        from pandas import DataFrame

        return DataFrame(self.to_rows(), columns=list(_COLUMNS)).astype({"bytes": "Int64"})

    def print(self, file: TextIO | None = None) -> None:
        """Prints the tables to `file`, or to stdout."""
        from pe_sim.studies.calibration_text import print_calibration

        print_calibration(self, file)

    def save_plot(self, path: str | Path) -> None:
        """Writes the measurements and their fits as a PNG file."""
        from pe_sim.studies.calibration_text import save_picture

        save_picture(self, Path(path))

    def save_array(self, path: str | Path) -> None:
        """Writes `calibrated_array` as a YAML file, whole or not at all.

        Raises:
            InputError: as of `calibrated_array`, or the file cannot be written.
        """
        from pe_sim.report.files import write_text
        from pe_sim.studies.calibration_text import array_text

        write_text(path, array_text(self))

    def _repr_html_(self) -> str:
        """The tables a notebook shows."""
        from pe_sim.studies.calibration_text import html_of

        return html_of(self)


def calibrate(
    profiles: Profile | Iterable[Profile],
    clock_ghz: float | None = None,
    array: ArrayConfig | str | Path | Mapping[str, Any] | None = None,
) -> Calibration:
    """Latency and bandwidth of a machine from measurements of its collectives.

    Args:
        profiles: files that Galvatron's profilers wrote, or their mappings; several are taken as one.
        clock_ghz: of the machine to be simulated; None: the array's, or 1 GHz.
        array: as loaded, or what `load_array` takes; its bus and tree are to take as long as what was measured.

    Raises:
        InputError: a fault in a profile, nothing that can be fitted, a clock beside an array, or an array without a bus
            and a tree.
    """
    loaded = None if array is None else as_array(array)
    clock = _clock(clock_ghz, loaded)
    found = load_galvatron_profiles(profiles)
    _check_use(found)
    fits = fits_of(found)
    machines = machines_of(fits, found.overlap_coefficient, clock, loaded)
    return Calibration(found, clock, fits, machines, loaded)


def _clock(clock_ghz: float | None, array: ArrayConfig | None) -> float:
    if array is not None:
        if clock_ghz is not None:
            raise InputError(
                "an array has its own clock", path="clock_ghz", given=clock_ghz, hint="give the clock or the array"
            )
        return array.clock_ghz
    if clock_ghz is None:
        return DEFAULT_CLOCK_GHZ
    is_number = isinstance(clock_ghz, int | float) and not isinstance(clock_ghz, bool)
    if not is_number or not 0 < clock_ghz <= MAX_CLOCK_GHZ:
        expected = f"a number of GHz above 0, at most {MAX_CLOCK_GHZ:g}"
        raise InputError("not a clock", path="clock_ghz", given=clock_ghz, expected=expected)
    return float(clock_ghz)


def _check_use(profiles: GalvatronProfiles) -> None:
    if not profiles.measurements and not profiles.layer_times and profiles.overlap_coefficient is None:
        raise InputError(
            "nothing that can be used was measured",
            source=", ".join(profiles.sources),
            expected="rates or times of collectives, an overlap coefficient, or times of two numbers of layers",
        )
