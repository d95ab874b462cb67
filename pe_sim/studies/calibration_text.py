"""A calibration for people: takes one, gives its tables, its figure, the array as YAML, and its card in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from pe_sim.config.arrays import array_to_dict
from pe_sim.config.galvatron_profiles import Kind
from pe_sim.notebook import Table, card
from pe_sim.report.table import emit, make_table
from pe_sim.studies.calibrated_machine import ARRAY, Machine, Setting
from pe_sim.studies.calibration import Calibration
from pe_sim.studies.calibration_fits import Fit
from pe_sim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pe_sim.report.calibration_plot import Panel, Series

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
    """From what, and in which cycles, in one line."""
    names = ", ".join(Path(source).name for source in found.profiles.sources)
    return f"Calibration at {found.clock_ghz:g} GHz from {names}"


def notes_of(found: Calibration) -> list[str]:
    """How the figures come about, and what was not used."""
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
    """The fits and settings as HTML."""
    tables = [Table(head, rows) for title, head, rows in _fit_tables(found) if title != _RESIDUALS]
    tables += [Table((_heading(found, one), *_SETTING_HEAD[1:]), _setting_rows(one)) for one in found.machines]
    tables += [Table(_LAYER_HEAD, _layer_rows(found), 0)] if found.profiles.layer_times else []
    return card(title_of(found), tables=tables, notes=notes_of(found))


def array_text(found: Calibration) -> str:
    """The calibrated array as a YAML file that `load_array` reads.

    Raises:
        InputError: as of `Calibration.calibrated_array`.
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
    """Writes the figure as a PNG file.

    Raises:
        InputError: no collective was measured.
    """
    from pe_sim.report.calibration_plot import save_calibration

    save_calibration(_panels(found), title_of(found), path)


def _fit_tables(found: Calibration) -> list[tuple[str, Sequence[str], list[tuple[str, ...]]]]:
    """Title, head and rows of the tables that have any."""
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
    """What rounding cannot repair."""
    from pe_sim.config.array_file import MAX_CYCLES, MAX_RATE  # loads pydantic

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
    """Microseconds."""
    return "-" if seconds is None else f"{seconds * 1e6:,.2f}"


def _giga(bytes_per_second: float) -> str:
    return f"{bytes_per_second / 1e9:,.2f}"


def _rate_name(kind: Kind) -> str:
    return kind.value.replace(" rate", "")


def _worst(fit: Fit) -> str:
    """The largest residual and where it is."""
    worst = fit.worst
    of = f" of {worst.measured.devices}" if fit.devices is None else ""
    return f"{_signed(worst.relative_error)} at {_size(worst.measured.num_bytes or 0)}{of}"


def _rate(bytes_per_second: float) -> str:
    return f"{bytes_per_second / 1e9:,.2f} GB/s"


def _size(num_bytes: int) -> str:
    return format_bytes(num_bytes).replace(".00", "")


def _signed(value: float, digits: int = 1) -> str:
    """Per cent; no sign where all digits are 0."""
    text = f"{100 * value:+.{digits}f}%"
    return "0%" if float(text[:-1]) == 0 else text


def _one_line(text: str) -> str:
    """Without what would end a comment."""
    return " ".join(text.split())


def _panels(found: Calibration) -> list[Panel]:
    """A panel for each collective whose times were measured, one for the rates."""
    from pe_sim.report.calibration_plot import Panel

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
    from pe_sim.report.calibration_plot import Series

    devices = fit.devices or 2
    points = tuple((float(point.measured.num_bytes or 0), point.measured.value) for point in fit.points)
    sizes = _spread(min(x for x, _ in points), max(x for x, _ in points))
    line = tuple((size, fit.seconds(size, devices)) for size in sizes)
    other = tuple((size, over_all.seconds(size, devices)) for size in sizes) if over_all else ()
    return Series(f"{devices} devices", points, line, other)


def _rate_series(fits: Sequence[Fit]) -> Series:
    from pe_sim.report.calibration_plot import Series

    points = tuple(
        (float(point.measured.devices), point.measured.value)
        for fit in fits
        if fit.devices is not None
        for point in fit.points
    )
    rate = fits[-1].bytes_per_second
    return Series(_rate_name(fits[0].kind), points, tuple((devices, rate) for devices, _ in points), ())


def _spread(low: float, high: float) -> list[float]:
    """Sizes at equal ratios, both ends with them."""
    ratio = high / low
    return [low * ratio ** (step / (_LINE_POINTS - 1)) for step in range(_LINE_POINTS)]
