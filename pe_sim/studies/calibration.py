"""Calibrates a machine by measured collectives: takes Galvatron's profiles, gives fits, tables, figure and YAML.

`calibration_fits` explains the model, how it is fitted, and what follows for an array and for links.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from pe_sim._version import __version__
from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.load import array_to_dict, as_array, load_array
from pe_sim.config.plans.galvatron_profiles import (
    GalvatronProfiles,
    Kind,
    Profile,
    load_galvatron_profiles,
)
from pe_sim.errors import InputError
from pe_sim.notebook import Table, card
from pe_sim.report.table import emit, make_table
from pe_sim.studies.calibration_fits import ARRAY, Fit, Machine, Point, Setting, fits_of, machines_of
from pe_sim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.console import RenderableType

    from pe_sim.report.plots.studies import Panel, Series


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
    """A machine calibrated by measurements.

    Args:
        profiles: the measurements.
        clock_ghz: the clock in whose cycles latencies are counted.
        fits: fits for each kind and number of devices, then one over all numbers of devices of the kind.
        machines: the fits as settings of an array and of the links of a system.
        array: the array whose bus and tree are calibrated; None: one with as many PEs as there were devices.
    """

    profiles: GalvatronProfiles
    clock_ghz: float
    fits: tuple[Fit, ...]
    machines: tuple[Machine, ...]
    array: ArrayConfig | None

    @property
    def overlap_coefficient(self) -> float | None:
        """How many times as long overlapped work takes; None if it was not measured."""
        return self.profiles.overlap_coefficient

    def fit(self, kind: Kind | str, devices: int | None = None) -> Fit:
        """The fit of a kind over `devices` devices; None: over all numbers of devices.

        Raises:
            InputError: there is no such fit.
        """
        for found in self.fits:
            if found.kind == kind and found.devices == devices:
                return found
        known = ", ".join(f"{found.kind} over {found.devices or 'all'}" for found in self.fits)
        raise InputError("there is no such fit", given=f"{kind} over {devices or 'all'}", expected=f"one of {known}")

    def calibrated_array(self) -> ArrayConfig:
        """The array with the fitted bus and tree, for its own overlap level.

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
        """The calibration as a JSON-ready dict, in seconds and bytes per second."""
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
        """Each measurement's point in its own fit, and in the fit over all numbers of devices or None."""
        over_all = {point.measured: point for fit in self.fits if fit.devices is None for point in fit.points}
        own = (point for fit in self.fits if fit.devices is not None for point in fit.points)
        return [(point, over_all.get(point.measured)) for point in own]

    def to_rows(self) -> list[dict[str, Any]]:
        """A row for each measurement, with its own fit and that over all numbers of devices."""
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
        """`to_rows()` as a pandas.DataFrame."""
        from pandas import DataFrame

        return DataFrame(self.to_rows(), columns=list(_COLUMNS)).astype({"bytes": "Int64"})

    def print(self, file: TextIO | None = None) -> None:
        """Prints the tables to `file`, or to stdout."""

        print_calibration(self, file)

    def save_plot(self, path: str | Path) -> None:
        """Writes the measurements and their fits as a PNG file."""

        save_picture(self, Path(path))

    def save_array(self, path: str | Path) -> None:
        """Writes `calibrated_array` as a YAML file, whole or not at all.

        Raises:
            InputError: as `calibrated_array` raises it, or the file cannot be written.
        """
        from pe_sim.report.files import write_text

        write_text(path, array_text(self))

    def _repr_html_(self) -> str:
        """HTML of the tables for a notebook."""

        return html_of(self)


def calibrate(
    profiles: Profile | Iterable[Profile],
    clock_ghz: float | None = None,
    array: ArrayConfig | str | Path | Mapping[str, Any] | None = None,
) -> Calibration:
    """The latency and bandwidth of a machine, fitted to measurements of its collectives.

    Args:
        profiles: files that Galvatron's profilers wrote, or their mappings; several are merged.
        clock_ghz: clock of the machine to be simulated; None: the array's, or 1 GHz.
        array: as loaded, or what `load_array` takes; the array whose bus and tree are calibrated.

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


# ---- A calibration for people: takes one, gives its tables, its figure, the array as YAML, and HTML for a notebook.


_FIT_HEAD: Final = ("collective", "devices", "points", "latency us", "a step us", "GB/s", "R2", "worst residual")
_POINT_HEAD: Final = (
    "collective",
    "devices",
    "size",
    "measured us",
    "fitted us",
    "residual",
    "over all us",
    "residual",
)
_RATE_HEAD: Final = ("rate", "devices", "measured GB/s", "over all GB/s", "residual")
_LAYER_HEAD: Final = ("batch", "sequence", "layers measured", "a layer")
_SETTING_HEAD: Final = ("setting", "asked for", "rounding")
_HOW: Final = (
    "Time = latency + bytes a device sends / bandwidth, by least squares on relative errors. Over all numbers of"
    " devices the latency is a start-up and one for each step of a ring. Residual: fitted over measured, less 1."
)
_RESIDUALS: Final = "Residuals"
_LINE_POINTS: Final = 64


def print_calibration(found: Calibration, file: TextIO | None = None) -> None:
    """Prints the tables to `file`, or to stdout."""
    parts: list[RenderableType] = [title_of(found)]
    for title, head, rows in _fit_tables(found):
        parts.append(make_table(title, *head, rows=rows))
    if found.profiles.layer_times:
        rows = _layer_rows(found)
        parts.append(make_table("Computation", *_LAYER_HEAD, rows=rows, text_columns=0))
    for machine in found.machines:
        parts.append(make_table(_heading(found, machine), *_SETTING_HEAD, rows=_setting_rows(machine)))
    emit((*parts, "", *notes_of(found)), file)


def title_of(found: Calibration) -> str:
    """One line that tells the sources of the calibration and its clock."""
    names = ", ".join(Path(source).name for source in found.profiles.sources)
    return f"Calibration at {found.clock_ghz:g} GHz from {names}"


def notes_of(found: Calibration) -> list[str]:
    """Notes on how the figures come about, and on what was not used."""
    notes = [_HOW] if any(not fit.kind.is_rate for fit in found.fits) else []
    coefficient = found.overlap_coefficient
    if coefficient is not None:
        notes.append(
            f"Overlap coefficient {coefficient:.4g}: what overlaps takes so many times as long. At overlap 1 to 3 the"
            " bandwidth is divided by it, for all messages."
        )
    devices = next((machine.source.devices for machine in found.machines if machine.target == ARRAY), None)
    if found.array is not None and devices is not None and devices != found.array.num_pes:
        notes.append(
            f"{found.array.name} has {found.array.num_pes:,} PEs, measured were {devices:,} devices: an all-reduce over"
            f" all its PEs takes as long as one over the {devices:,} devices."
        )
    for setting in {s.path: s for machine in found.machines for s in machine.settings}.values():
        note = _misfit(setting)
        notes += [note] if note else []
    if found.profiles.ignored:
        notes.append(f"Ignored: {', '.join(found.profiles.ignored)}.")
    return notes


def html_of(found: Calibration) -> str:
    """HTML of the fits and settings for a notebook."""
    tables = [Table(head, rows) for title, head, rows in _fit_tables(found) if title != _RESIDUALS]
    tables += [Table((_heading(found, one), *_SETTING_HEAD[1:]), _setting_rows(one)) for one in found.machines]
    tables += [Table(_LAYER_HEAD, _layer_rows(found), 0)] if found.profiles.layer_times else []
    return card(title_of(found), tables=tables, notes=notes_of(found))


def array_text(found: Calibration) -> str:
    """The text of a YAML file of the calibrated array, which `load_array` reads.

    Raises:
        InputError: as `Calibration.calibrated_array` raises it.
    """
    import yaml

    array = found.calibrated_array()
    machine = next(machine for machine in found.machines if machine.holds(ARRAY, array.overlap))
    source = machine.source
    latency = "" if source.latency_seconds is None else f"{format_seconds(source.latency_seconds)} + "
    names = ", ".join(Path(name).name for name in found.profiles.sources)
    assert found.array is not None
    lines = [
        f"{found.array.name} with bus and tree as measured: {names}",
        f"{source.kind} over {source.devices} devices: {latency}bytes sent / {_rate(source.bytes_per_second)}",
        f"for overlap {_levels(machine)}: {_rate(machine.bytes_per_second)}; latencies in cycles, none is auto",
    ]
    comment = "".join(f"# {_one_line(line)}\n" for line in lines)
    return comment + yaml.safe_dump(array_to_dict(array), sort_keys=False, default_flow_style=None, width=110)


def save_picture(found: Calibration, path: Path) -> None:
    """Writes the figure of measurements and fits as a PNG file.

    Raises:
        InputError: no collective was measured.
    """
    from pe_sim.report.plots.studies import save_calibration

    save_calibration(_panels(found), title_of(found), path)


def _fit_tables(found: Calibration) -> list[tuple[str, Sequence[str], list[tuple[str, ...]]]]:
    """(title, head, rows) of each table that has any rows."""
    tables: list[tuple[str, Sequence[str], list[tuple[str, ...]]]] = [
        ("Fits", _FIT_HEAD, [_fit_row(fit) for fit in found.fits if not fit.kind.is_rate]),
        (_RESIDUALS, _POINT_HEAD, _point_rows(found)),
        ("Rates: means over sizes, latencies in them", _RATE_HEAD, _rate_rows(found)),
    ]
    return [table for table in tables if table[2]]


def _fit_row(fit: Fit) -> tuple[str, ...]:
    return (
        fit.kind.value,
        "all" if fit.devices is None else f"{fit.devices:,}",
        f"{len(fit.points)}",
        _micro(fit.latency_seconds),
        _micro(fit.step_seconds),
        _giga(fit.bytes_per_second),
        "-" if fit.r_squared is None else f"{fit.r_squared:.4f}",
        _worst(fit),
    )


def _point_rows(found: Calibration) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for point, other in found.points():
        measured = point.measured
        if measured.kind.is_rate:
            continue
        fitted_over_all = ("-", "-") if other is None else (_micro(other.fitted), _signed(other.relative_error))
        rows.append(
            (
                measured.kind.value,
                f"{measured.devices:,}",
                _size(measured.num_bytes or 0),
                _micro(measured.value),
                _micro(point.fitted),
                _signed(point.relative_error),
                *fitted_over_all,
            )
        )
    return rows


def _rate_rows(found: Calibration) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for point, other in found.points():
        measured = point.measured
        if not measured.kind.is_rate:
            continue
        over_all = ("-", "-") if other is None else (_giga(other.fitted), _signed(other.relative_error))
        rows.append((_rate_name(measured.kind), f"{measured.devices:,}", _giga(measured.value), *over_all))
    return rows


def _layer_rows(found: Calibration) -> list[tuple[str, ...]]:
    return [
        (
            f"{time.batch_size:,}",
            "-" if time.seq_len is None else f"{time.seq_len:,}",
            ", ".join(map(str, time.layers)),
            format_seconds(time.seconds),
        )
        for time in found.profiles.layer_times
    ]


def _setting_rows(machine: Machine) -> list[tuple[str, ...]]:
    return [
        (
            setting.text,
            "-" if setting.asked is None else f"{setting.asked:,.2f}",
            "-" if setting.asked is None else _signed(setting.rounding, 2),
        )
        for setting in machine.settings
    ]


def _heading(found: Calibration, machine: Machine) -> str:
    if machine.target == ARRAY:
        name = f"Bus and tree of {found.array.name}" if found.array else "Bus and tree of an array"
    else:
        name = "Links of a system"
    return f"{name}, overlap {_levels(machine)}: {_rate(machine.bytes_per_second)}"


def _levels(machine: Machine) -> str:
    first, last = machine.overlaps[0], machine.overlaps[-1]
    return f"{first}" if first == last else f"{first} to {last}"


def _misfit(setting: Setting) -> str | None:
    """A note on a value that no rounding makes fit an array; None if it fits."""
    from pe_sim.config.files.schema import MAX_CYCLES, MAX_RATE  # loads pydantic

    if setting.asked is None:
        return None
    most = setting.value if isinstance(setting.value, int) else max(setting.value)
    if setting.path.endswith("bytes_per_cycle"):
        if most > MAX_RATE:
            return f"{setting.path}: an array has at most {MAX_RATE:,} bytes a cycle: take a higher clock."
        if setting.asked < 1:
            return f"{setting.path}: {setting.asked:.3g} bytes a cycle are fewer than the least, 1: take a lower clock."
        return None
    if most > MAX_CYCLES:
        return f"{setting.path}: a latency has at most {MAX_CYCLES:,} cycles: take a lower clock."
    if setting.total - setting.asked <= 0.5:
        return None
    return (
        f"{setting.path}: {setting.asked:,.0f} cycles remain of what was measured, fewer than the least,"
        f" {setting.total:,}: the array's own overhead and combining take longer."
    )


def _micro(seconds: float | None) -> str:
    """Microseconds as text, "-" for None."""
    return "-" if seconds is None else f"{seconds * 1e6:,.2f}"


def _giga(bytes_per_second: float) -> str:
    return f"{bytes_per_second / 1e9:,.2f}"


def _rate_name(kind: Kind) -> str:
    return kind.value.replace(" rate", "")


def _worst(fit: Fit) -> str:
    """The largest residual and the size it is at, as text."""
    worst = fit.worst
    of = f" of {worst.measured.devices}" if fit.devices is None else ""
    return f"{_signed(worst.relative_error)} at {_size(worst.measured.num_bytes or 0)}{of}"


def _rate(bytes_per_second: float) -> str:
    return f"{bytes_per_second / 1e9:,.2f} GB/s"


def _size(num_bytes: int) -> str:
    return format_bytes(num_bytes).replace(".00", "")


def _signed(value: float, digits: int = 1) -> str:
    """A signed percentage as text; "0%" if all its digits are 0."""
    text = f"{100 * value:+.{digits}f}%"
    return "0%" if float(text[:-1]) == 0 else text


def _one_line(text: str) -> str:
    """The text in one line, as line ends would end a comment."""
    return " ".join(text.split())


def _panels(found: Calibration) -> list[Panel]:
    """A panel for each collective whose times were measured, and one for all rates."""
    from pe_sim.report.plots.studies import Panel

    panels = []
    for kind in Kind:
        fits = [fit for fit in found.fits if fit.kind is kind and fit.devices is not None]
        if kind.is_rate or not fits:
            continue
        over_all = next((fit for fit in found.fits if fit.kind is kind and fit.devices is None), None)
        series = [_time_series(fit, over_all) for fit in fits]
        panels.append(Panel(kind.value, "bytes", "seconds", tuple(series)))
    rates = [kind for kind in Kind if kind.is_rate and any(fit.kind is kind for fit in found.fits)]
    if rates:
        series = [_rate_series([fit for fit in found.fits if fit.kind is kind]) for kind in rates]
        panels.append(Panel("measured rates", "devices", "bytes/s", tuple(series)))
    return panels


def _time_series(fit: Fit, over_all: Fit | None) -> Series:
    from pe_sim.report.plots.studies import Series

    devices = fit.devices or 2
    points = tuple((float(point.measured.num_bytes or 0), point.measured.value) for point in fit.points)
    sizes = _spread(min(x for x, _ in points), max(x for x, _ in points))
    line = tuple((size, fit.seconds(size, devices)) for size in sizes)
    other = tuple((size, over_all.seconds(size, devices)) for size in sizes) if over_all else ()
    return Series(f"{devices} devices", points, line, other)


def _rate_series(fits: Sequence[Fit]) -> Series:
    from pe_sim.report.plots.studies import Series

    points = tuple(
        (float(point.measured.devices), point.measured.value)
        for fit in fits
        if fit.devices is not None
        for point in fit.points
    )
    rate = fits[-1].bytes_per_second
    return Series(_rate_name(fits[0].kind), points, tuple((devices, rate) for devices, _ in points), ())


def _spread(low: float, high: float) -> list[float]:
    """`_LINE_POINTS` sizes from `low` to `high` at equal ratios."""
    ratio = high / low
    return [low * ratio ** (step / (_LINE_POINTS - 1)) for step in range(_LINE_POINTS)]
