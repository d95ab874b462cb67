"""Points of an experiment: takes settings as those of a sweep, gives tables of figures, or of where the time goes."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from joblib import Parallel, cpu_count, delayed

import pe_sim as ps
from experiments.study import Ask
from pe_sim.report.references import reference
from pe_sim.report.report import Report
from pe_sim.report.step import cycles_by_kind
from pe_sim.studies.resolve import Resolved, Resolver
from pe_sim.studies.rows import figures_of
from pe_sim.studies.sweep import Progress
from pe_sim.units import ceil_div

# What a critical path can wait for on one bus and one tree, in the order in which it is stacked.
CAUSES = ("memory", "compute", "vector", "root", "bus", "tree", "wait")
SHARDED = ("workflow-1", "workflow-2", "alternating", "megatron", "all-row", "all-col")
_PATH = "path."


@dataclass(frozen=True, slots=True)
class Case:
    """One point.

    Args:
        labels: what the experiment calls it; the first columns of its row.
        settings: by the dotted paths of a sweep.
    """

    labels: Mapping[str, Any]
    settings: Mapping[str, Any]


def swept(cases: Sequence[Case], ask: Ask, columns: Sequence[str]) -> pd.DataFrame:
    """A row for each case in their order: its labels, its workflow, the columns named of a sweep's table, the error.

    Raises:
        InputError: a setting that no sweep has, or a fault of the simulator.
    """

    def progress(state: Progress) -> None:
        ask.tell(f"{state.done:,} of {state.total:,} points")

    with tempfile.TemporaryDirectory() as folder:
        result = ps.sweep(
            {"points": [dict(case.settings) for case in cases]}, f"{folder}/sweep", jobs=ask.jobs, progress=progress
        )
        found = result.to_frame()
    faults = found.loc[found["error_kind"].notna() & (found["error_kind"] != "input"), "error"]
    if len(faults):
        raise ps.InputError(f"{len(faults)} points ended with a fault of pe-sim, the first: {faults.iloc[0]}")
    labels = pd.DataFrame([dict(case.labels) for case in cases])
    figures = pd.DataFrame({name: found[name] for name in ("workflow", *columns)})
    first_lines = found["error"].str.partition("\n")[0]
    return pd.concat([labels, figures, first_lines.rename("error")], axis=1)


def best_of(rows: pd.DataFrame, by: Sequence[str]) -> pd.Series:
    """Numbers of the rows with the fewest cycles, one for each combination of the columns `by`, in their order.

    Where nothing fits it is the first that came nearest: of those errors that name a demand, the least.
    """
    demand = rows["error"].str.extract(r"needs ([\d,]+) ")[0].str.replace(",", "").astype(float)
    rank = pd.DataFrame({"failed": rows["error"].notna(), "cycles": rows["cycles"].astype(float), "demand": demand})
    ordered = pd.concat([rows[list(by)], rank], axis=1).sort_values(["failed", "cycles", "demand"], kind="stable")
    return pd.Series(ordered.drop_duplicates(list(by)).index.sort_values())


def detailed(cases: Sequence[Case], ask: Ask) -> pd.DataFrame:
    """A row for each case: labels, every figure of a sweep's row, the critical path by cause, area, and the least work.

    `path.CAUSE` are cycles of the critical path and add up to `cycles`; `area_mm2` is all silicon; `ideal_cycles` is
    what the PEs would take at their peaks, with nothing to wait for; `fits` is false only of what `allow_overflow` let
    pass. Of what does not fit without it, there is `error` alone.
    """
    jobs = ask.jobs or cpu_count()
    rows: list[dict[str, Any]] = []
    with warnings.catch_warnings(), Parallel(n_jobs=min(jobs, len(cases)), return_as="generator") as parallel:
        warnings.filterwarnings("ignore", "A worker stopped")  # joblib renews workers that have grown; nothing is lost
        for row in parallel(delayed(_detailed_row)(case) for case in cases):
            rows.append(row)
            ask.tell(f"{len(rows):,} of {len(cases):,} critical paths")
    return pd.DataFrame(rows)


def _detailed_row(case: Case) -> dict[str, Any]:
    resolved = Resolver(None).resolve(dict(case.settings))
    labels = {**case.labels, "workflow": resolved.workflow.name}
    capacity = resolved.array.pe.memory.capacity_bytes
    ((step, _),) = resolved.steps.weighted
    try:
        report = ps.simulate(
            resolved.model,
            resolved.array,
            step,
            resolved.workflow,
            resolved.engine,
            allow_overflow=resolved.allow_overflow,
        )
    except ps.InfeasibleError as error:
        return {**labels, "memory.capacity_bytes_per_pe": capacity, "error": str(error).partition("\n")[0]}
    path = cycles_by_kind(report)
    unknown = set(path) - set(CAUSES)
    assert not unknown, f"causes without a place: {unknown}"
    return {
        **labels,
        **figures_of(report),
        **{f"{_PATH}{cause}": path.get(cause, 0) for cause in CAUSES},
        "area_mm2": report.area.total_mm2,
        "ideal_cycles": ideal_cycles(resolved, report),
        "fits": _fits(report),
        "error": None,
    }


def _fits(report: Report) -> bool:
    """Whether the PEs and the root have room; only with `allow_overflow` can it be that they have not."""
    try:
        report.footprint.check()
    except ps.InfeasibleError:
        return False
    return True


def ideal_cycles(resolved: Resolved, report: Report) -> int:
    """No step is shorter: all PEs read weights and cache once and multiply, both at their peaks, at the same time."""
    work = reference("h100", resolved.model, report.step, resolved.array.dtypes)  # its bytes and flops, not its rates
    pe, count = resolved.array.pe, resolved.array.num_pes
    macs = work.flops // 2
    reads = math.ceil(work.read_bytes / (count * pe.memory.bytes_per_cycle))
    return max(reads, ceil_div(macs, count * pe.matrix.outputs * pe.matrix.depth))


def path_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """The causes' shares of the critical path, columns in the order of CAUSES."""
    cycles = rows[[f"{_PATH}{cause}" for cause in CAUSES]].astype(float)
    cycles.columns = list(CAUSES)
    return cycles.div(rows["cycles"].astype(float), axis=0)
