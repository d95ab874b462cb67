"""What each parameter of an array is worth: takes a model, an array and a step, gives per cent of time per per cent.

Every parameter is moved up and down to the whole numbers nearest to the change asked for, by one at least (counts of
units are doubled and halved). Each time the step is simulated in full, and what came out is brought to one per cent:

    worth of +1 % = (T' - T) / T * (x(1.01) - 1) / (x(s) - 1),  x(s) = s for latencies, 1 / s for rates and counts,

for a parameter at s times its value, with T' the time simulated there. x is the variable in which the timing contract
is linear: a chain of work and messages takes the sum of its latencies and of its sizes over its rates. So where the
critical path stays the same, the figure is exact up to the contract's own ceilings (a message of 64 bytes takes two
beats of 63). Where it changes on the way, the figure is that of the chord. The elasticity is the chord from the lower
to the upper value, in which ceilings on both sides mostly cancel.

The sum rule: time is homogeneous. A machine with every latency halved and every rate doubled takes half the cycles. So
the elasticities of all latencies, less those of all rates, add up to 1 where every bound is smooth (Euler's theorem);
`Sensitivity.sum_of_elasticities` tells what they come to. Outputs and depth of the matrix unit are one rate, their
product, of which the outputs stand in the sum; PEs, wires and the clock change several of the others at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from pe_sim import api
from pe_sim._version import __version__
from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.models.load import as_model
from pe_sim.config.models.model import ModelConfig
from pe_sim.errors import DOES_NOT_FIT, InfeasibleError, InputError, did_you_mean
from pe_sim.notebook import Table, card
from pe_sim.report.table import emit, make_table
from pe_sim.studies.parameters import (
    COLUMN_TIME,
    DEPTH,
    EVERY_LATENCY,
    PES,
    WIRES,
    Kind,
    Parameter,
    Source,
    parameters_of,
)
from pe_sim.units import format_seconds

if TYPE_CHECKING:
    from pandas import DataFrame

    from pe_sim.report.plots.studies import Axes, Bar

SCHEMA: Final = "pe-sim.sensitivity/1"
DEFAULT_CHANGE: Final = 0.01
MAX_CHANGE: Final = 1000.0
_PER_CENT: Final = Fraction(1, 100)

WeightedStep = tuple[api.Step, float]


@dataclass(frozen=True, slots=True)
class Move:
    """A parameter at another value, and what that does to the time.

    Args:
        scale: factor on the present value.
        value: the new value as text.
        cycles: cycles of the step at that value; None if it cannot be simulated.
        change: relative change of the time in seconds.
        per_cent: change of the time in per cent, brought to one per cent of the parameter.
        reason: why it cannot be simulated.
        shortage: what does not fit the memories at that value, where `allow_overflow` let it pass.
    """

    scale: float
    value: str
    cycles: float | None = None
    change: float | None = None
    per_cent: float | None = None
    reason: str | None = None
    shortage: InfeasibleError | None = None

    def to_dict(self) -> dict[str, Any]:
        """The move as a JSON-ready dict."""
        return {
            "scale": self.scale,
            "value": self.value,
            "cycles": self.cycles,
            "time_change": self.change,
            "per_cent_of_step_per_one_per_cent": self.per_cent,
            "reason": self.reason,
            **({"does_not_fit": self.shortage.to_dict()} if self.shortage else {}),
        }


@dataclass(frozen=True, slots=True)
class Worth:
    """What one parameter is worth in a step's time.

    Args:
        parameter: its name; `kind` and `unit` are those of the `Parameter`, `value` is its present value.
        more, less: the parameter moved up and down; None where there is no whole number below.
        elasticity: per cent of the time for one per cent of the parameter, from the lower to the upper value; None if
            neither can be simulated.
    """

    parameter: str
    kind: Kind
    unit: str
    value: str
    paths: tuple[str, ...]
    more: Move
    less: Move | None
    elasticity: float | None

    @property
    def weight(self) -> float:
        """The larger effect of the two moves, in per cent, by which tornado figures are sorted."""
        sides = [move.per_cent for move in (self.more, self.less) if move is not None and move.per_cent is not None]
        return max(map(abs, sides), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """The worth as a JSON-ready dict."""
        return {
            "parameter": self.parameter,
            "kind": self.kind.value,
            "unit": self.unit,
            "value": self.value,
            "paths": list(self.paths),
            "elasticity": self.elasticity,
            "more": self.more.to_dict(),
            "less": self.less.to_dict() if self.less else None,
        }


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What every parameter of an array is worth in one step, or in several together.

    Args:
        model, array, workflow: what was simulated; the workflow stays the same throughout.
        steps: (step, weight) pairs.
        cycles: weighted cycles of the steps on the array as it is.
        change: relative change by which parameters were moved, to the nearest whole numbers, by one at least.
        rows: a `Worth` for each parameter, the one with the most effect first.
        left_out: why parameters cannot be moved, by name.
        complete: whether all other parameters were moved, and not only some that were asked for.
        shortage: what does not fit the memories of the array as it is, where `allow_overflow` let it pass.
    """

    model: ModelConfig
    array: ArrayConfig
    workflow: api.Workflow
    steps: tuple[WeightedStep, ...]
    cycles: float
    change: float
    rows: tuple[Worth, ...]
    left_out: Mapping[str, str]
    complete: bool = True
    shortage: InfeasibleError | None = None

    def __getitem__(self, parameter: str) -> Worth:
        """The row of a parameter by its name.

        Raises:
            InputError: there is no row of this name.
        """
        found = next((row for row in self.rows if row.parameter == parameter), None)
        if found is None:
            raise _unknown(parameter, [row.parameter for row in self.rows])
        return found

    @property
    def sum_of_elasticities(self) -> float | None:
        """Sum of the latencies' elasticities less the rates': 1 where all bounds are smooth; None if one is unknown."""
        if not self.complete or EVERY_LATENCY in self.left_out:
            return None
        latencies = [row.elasticity for row in self.rows if row.parameter in (EVERY_LATENCY, COLUMN_TIME)]
        rates = [
            row.elasticity
            for row in self.rows
            if row.kind in (Kind.RATE, Kind.COUNT) and row.parameter not in (DEPTH, PES, WIRES)
        ]
        known = [each for each in (*latencies, *rates) if each is not None]
        if len(known) < len(latencies) + len(rates):
            return None
        return math.fsum(known[: len(latencies)]) - math.fsum(known[len(latencies) :])

    def to_dict(self) -> dict[str, Any]:
        """The sensitivity as a JSON-ready dict."""
        from pe_sim.config.arrays.load import array_to_dict

        return {
            "schema": SCHEMA,
            "pe_sim_version": __version__,
            "model": self.model.to_dict(),
            "array": array_to_dict(self.array),
            "workflow": self.workflow.name,
            "steps": [{"weight": weight, **step.to_dict()} for step, weight in self.steps],
            **({"does_not_fit": self.shortage.to_dict()} if self.shortage else {}),
            "cycles": self.cycles,
            "seconds": self.cycles / (self.array.clock_ghz * 1e9),
            "change": self.change,
            "sum_of_elasticities": self.sum_of_elasticities,
            "parameters": [row.to_dict() for row in self.rows],
            "left_out": [{"parameter": name, "reason": reason} for name, reason in self.left_out.items()],
        }

    def to_rows(self) -> list[dict[str, Any]]:
        """A flat row for each parameter, for a table or a CSV file."""
        rows = []
        for row in self.rows:
            sides = {"more": row.more.to_dict(), "less": row.less.to_dict() if row.less else {}}
            moved = {f"{side}_{key}": move.get(key) for side, move in sides.items() for key in row.more.to_dict()}
            flat = {key: value for key, value in row.to_dict().items() if key not in ("more", "less", "paths")}
            rows.append({**flat, "paths": " ".join(row.paths), **moved})
        return rows

    def to_frame(self) -> DataFrame:
        """`to_rows()` as a pandas.DataFrame."""
        from pandas import DataFrame  # heavy, and only needed here

        return DataFrame(self.to_rows())

    def print(self, file: TextIO | None = None) -> None:
        """Prints the table to `file`, or to stdout."""

        print_sensitivity(self, file)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the tornado figure, with the worth of one per cent of each parameter; returns the axes."""

        return plot_sensitivity(self, ax)

    def _repr_html_(self) -> str:
        """HTML of the table for a notebook."""

        return html_of(self)


def sensitivity(
    model: ModelConfig | str | Path | Mapping[str, Any],
    array: ArrayConfig | str | Path | Mapping[str, Any],
    step: api.Steps,
    workflow: api.Workflow | str | Path = "workflow-1",
    engine: str = api.DEFAULT_ENGINE,
    *,
    change: float = DEFAULT_CHANGE,
    parameters: Collection[str] | None = None,
    overrides: Mapping[str, object] | None = None,
    allow_overflow: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Sensitivity:
    """The worth of one per cent more and less of each parameter of an array, in per cent of a step's time.

    Args:
        model: as loaded, or what `load_model` takes.
        array: what `load_array` takes, so that `auto` latencies stay derived when the number of PEs changes; in an
            ArrayConfig, latencies that its floor plan would give count as `auto`.
        step: one step, or several as (step, weight), of which the weighted sum counts.
        workflow: as of `simulate`; "auto" is searched once, for the array as it is.
        engine: one of `ENGINES`.
        change: relative change of a parameter; 0.01 moves 64 by one, which is the least, 1 doubles it.
        parameters: names of the parameters to move; None: all.
        overrides: values of the array by dotted path that hold throughout.
        allow_overflow: simulate even what does not fit the memories.
        progress: called with a parameter's name, the number of parameters done, and their total.

    Raises:
        InputError: something given is wrong, or the step cannot be simulated on the array as it is.
    """
    _check_change(change)
    model = as_model(model)
    source = Source.of(array, overrides)
    loaded, steps = source.load(), _weighted(step)
    mapping = workflow if isinstance(workflow, api.Workflow) else api.load_workflow(workflow)
    if mapping.searched:
        mapping = api.search(model, loaded, steps, workflow=mapping, seconds=math.inf).uninterrupted.workflow

    def timed_on(machine: ArrayConfig) -> tuple[float, InfeasibleError | None]:
        reports = [
            api.simulate(model, machine, one, mapping, engine, allow_overflow=allow_overflow) for one, _ in steps
        ]
        pairs = zip(reports, steps, strict=True)
        cycles = math.fsum(weight * report.latency_cycles for report, (_, weight) in pairs)
        return cycles, next((report.shortage for report in reports if report.shortage), None)

    now, shortage = timed_on(loaded)
    known, left_out = parameters_of(source, loaded)
    chosen = _chosen(known, left_out, parameters)
    mover = _Mover(source, loaded, now, Fraction(str(change)), timed_on)
    rows = []
    for index, parameter in enumerate(chosen):
        if progress:
            progress(parameter.name, index, len(chosen))
        rows.append(mover.worth(parameter))
    if progress:
        progress("", len(chosen), len(chosen))
    ordered = sorted(rows, key=lambda row: -row.weight)
    complete = parameters is None
    return Sensitivity(
        model, loaded, mapping, steps, now, change, tuple(ordered), left_out if complete else {}, complete, shortage
    )


@dataclass(frozen=True, slots=True)
class _Mover:
    """A mover of one array's parameters; `now` is its cycles, `timed_on` gives cycles and shortage of another array."""

    source: Source
    array: ArrayConfig
    now: float
    change: Fraction
    timed_on: Callable[[ArrayConfig], tuple[float, InfeasibleError | None]]

    def worth(self, parameter: Parameter) -> Worth:
        """The worth of a parameter, which is moved up and down."""
        up, down = parameter.scales(self.change)
        more = self._moved(parameter, up, 1 + _PER_CENT)
        less = self._moved(parameter, down, 1 - _PER_CENT) if down is not None else None
        return Worth(
            parameter.name,
            parameter.kind,
            parameter.unit,
            parameter.described(),
            tuple(setting.path for setting in parameter.settings if setting.numbers()),
            more,
            less,
            _elasticity(parameter.kind, more, less),
        )

    def _moved(self, parameter: Parameter, scale: Fraction, by_one_per_cent: Fraction) -> Move:
        value = parameter.described(scale)
        try:
            machine = self.source.load(parameter.overrides(scale))
            cycles, shortage = self.timed_on(machine)
        except InputError as error:  # a number of PEs that does not fit, memories that are too small
            return Move(float(scale), value, reason=f"{error.path}: {error.problem}" if error.path else error.problem)
        change = cycles / self.now * (self.array.clock_ghz / machine.clock_ghz) - 1
        variable = (_variable(parameter.kind, each) - 1 for each in (by_one_per_cent, scale))
        per_cent = 100 * change * float(next(variable) / next(variable))
        return Move(float(scale), value, cycles, change, per_cent, shortage=shortage)


def _variable(kind: Kind, scale: Fraction) -> Fraction:
    """x of the module's docstring at a scale: the variable in which the time is linear."""
    return scale if kind is Kind.LATENCY else 1 / scale


def _elasticity(kind: Kind, more: Move, less: Move | None) -> float | None:
    """The slope of the chord between the moves that could be simulated; the present value stands in for one."""
    ends = [
        (float(_variable(kind, Fraction(move.scale))), move.change)
        for move in (less, more)
        if move is not None and move.change is not None
    ]
    if not ends:
        return None
    (x_first, first), (x_last, last) = ends[0], ends[1] if len(ends) > 1 else (1.0, 0.0)
    slope = (last - first) / (x_last - x_first)
    return slope if kind is Kind.LATENCY else -slope


def _weighted(steps: api.Steps) -> tuple[WeightedStep, ...]:
    if isinstance(steps, api.Decode | api.Prefill):
        return ((steps, 1.0),)
    if not isinstance(steps, Sequence) or isinstance(steps, str) or not steps:
        raise InputError("this is no step", path="step", given=steps, expected="Decode(...), Prefill(...), or several")
    return tuple((each[0], float(each[1])) if isinstance(each, tuple) else (each, 1.0) for each in steps)


def _check_change(change: float) -> None:
    number = isinstance(change, int | float) and not isinstance(change, bool)
    if not number or not 0 < change <= MAX_CHANGE:
        raise InputError(
            "not a relative change",
            path="change",
            given=change,
            expected=f"a number above 0, at most {MAX_CHANGE:g}; 0.01 is one per cent, 1 doubles",
        )


def _chosen(
    known: Sequence[Parameter], left_out: Mapping[str, str], names: Collection[str] | None
) -> tuple[Parameter, ...]:
    if names is None:
        return tuple(known)
    by_name = {parameter.name: parameter for parameter in known}
    wanted = [str(name).replace("-", " ") for name in ([names] if isinstance(names, str) else names)]
    spelled = {name.lower(): name for name in (*by_name, *left_out)}
    found = [spelled.get(name.lower(), name) for name in wanted]
    for name in found:
        if name in left_out:
            raise InputError(f"this parameter cannot be moved: {left_out[name]}", path="parameters", given=name)
        if name not in by_name:
            raise _unknown(name, list(by_name))
    return tuple(by_name[name] for name in dict.fromkeys(found))


def _unknown(name: str, known: Collection[str]) -> InputError:
    return InputError("no such parameter", path="parameters", given=name, hint=did_you_mean(name, known))


# ---- A sensitivity for people: takes one, gives its table, its tornado figure and its rows in a notebook.


_HEAD: Final = ("parameter", "now", "moved to", "1% more", "1% less", "elasticity")
_HOW: Final = (
    "1% more, 1% less: of the parameter, in per cent of the step's time; simulated at the values it was moved to, and"
    " brought to one per cent. Elasticity: per cent of the time for one per cent, over both moves."
)


def print_sensitivity(found: Sensitivity, file: TextIO | None = None) -> None:
    """Prints the table to `file`, or to stdout."""
    rows = [_cells(row) for row in found.rows]
    heading = (
        f"{title_of(found)}: {found.cycles:,.0f} cycles ="
        f" {format_seconds(found.cycles / (found.array.clock_ghz * 1e9))}"
    )
    table = make_table("What one per cent of each parameter is worth", *_HEAD, rows=rows, text_columns=3)
    emit((heading, table, "", *_notes(found)), file)


def title_of(found: Sensitivity) -> str:
    """One line that tells what was simulated."""
    phases = " and ".join(dict.fromkeys(step.phase for step, _ in found.steps))
    where = f"{found.array.name} ({found.array.num_pes:,} PEs)"
    lacks = f" ({DOES_NOT_FIT})" if found.shortage else ""
    return f"{found.model.name} on {where}, {found.workflow.name}, {phases}{lacks}"


def plot_sensitivity(found: Sensitivity, ax: Axes | None = None) -> Axes:
    """Draws the tornado figure into `ax` or a new figure; returns the axes."""
    from pe_sim.report.plots.studies import plot_tornado

    return plot_tornado(_bars(found), title_of(found), ax)


def save_sensitivity(found: Sensitivity, path: Path) -> None:
    """Writes the tornado figure as a PNG file."""
    from pe_sim.report.plots.studies import save_tornado

    save_tornado(_bars(found), title_of(found), path)


def _bars(found: Sensitivity) -> list[Bar]:
    from pe_sim.report.plots.studies import Bar

    return [
        Bar(f"{row.parameter}\n{_now(row)}", row.more.per_cent, row.less.per_cent if row.less else None)
        for row in found.rows
    ]


def html_of(found: Sensitivity) -> str:
    """HTML of the table for a notebook."""
    return card(title_of(found), tables=[Table(_HEAD, [_cells(row) for row in found.rows])], notes=_notes(found))


def _cells(row: Worth) -> tuple[str, ...]:
    moves = [move for move in (row.less, row.more) if move is not None]
    moved = ", ".join(move.value for move in moves)
    return (row.parameter, _now(row), moved, _worth(row.more), _worth(row.less), _elasticity_text(row))


def _now(row: Worth) -> str:
    return f"{row.value} {row.unit.removesuffix('s') if row.value == '1' else row.unit}"


def _worth(move: Move | None) -> str:
    return "-" if move is None or move.per_cent is None else _signed(move.per_cent) + "%"


def _elasticity_text(row: Worth) -> str:
    return "-" if row.elasticity is None else _signed(row.elasticity)


def _signed(value: float) -> str:
    """A signed number with four decimals; "0" if all its digits are 0."""
    text = f"{value:+.4f}"
    return "0" if float(text) == 0 else text


def _notes(found: Sensitivity) -> list[str]:
    notes = [f"{DOES_NOT_FIT}: {found.shortage.problem}."] if found.shortage else []
    notes.append(_HOW)
    total = found.sum_of_elasticities
    if total is not None:
        notes.append(
            f"Sum of the elasticities, latency of everything less all rates: {total:.3f}"
            " (1 where every bound is smooth)."
        )
    if any(row.kind is Kind.COUNT for row in found.rows):
        notes.append(
            "Counts of units, which cut work into tiles and shards, and the wire speed, whose latencies are rounded up,"
            " are doubled and halved."
        )
    for row in found.rows:
        for move in (row.more, row.less):
            if move is not None and move.reason:
                notes.append(f"{row.parameter} at {move.value} cannot be simulated: {move.reason}.")
            if move is not None and move.shortage and not found.shortage:
                notes.append(f"{row.parameter} at {move.value} {DOES_NOT_FIT}: {move.shortage.problem}.")
    reasons: dict[str, list[str]] = {}
    for name, reason in found.left_out.items():
        reasons.setdefault(reason, []).append(name)
    notes += [f"note: {note}" for note in found.model.notes]
    notes += [f"Left out: {', '.join(names)}: {reason}." for reason, names in reasons.items()]
    return notes
