"""Takes a simulated step on several arrays, gives its report: plain records, as the report's room has them."""

from __future__ import annotations

from pe_sim.report.system_records import ArrayHolding, Line, PassWork
from pe_sim.report.system_report import SystemReport
from pe_sim.systems.memory import ArrayMemory
from pe_sim.systems.script import Script
from pe_sim.systems.simulation import SystemRun


def system_report(run: SystemRun) -> SystemReport:
    """The report of a run; its figures are worked out when they are asked for."""
    script = run.timed.script
    return SystemReport(
        model=script.model,
        system=script.system,
        plan=script.deployment.plan,
        step=script.step,
        workflow=script.workflow,
        lines=_lines(script),
        program=run.timed.program,
        times=run.times,
        works=tuple(PassWork(work.schedule, work.trace) for work in run.timed.works),
        holdings=tuple(_holding(each) for each in run.memory),
        shortage=max(
            (each.shortage for each in run.memory if each.shortage),
            key=lambda shortage: shortage.demand / shortage.bound,
            default=None,
        ),
    )


def _lines(script: Script) -> tuple[Line, ...]:
    pipelines = script.deployment.pipelines
    return tuple(
        Line(line.stages, line.sequences, len(parts)) for line, parts in zip(pipelines, script.parts, strict=True)
    )


def _holding(memory: ArrayMemory) -> ArrayHolding:
    return ArrayHolding(
        rank=memory.rank,
        pipeline=memory.pipeline,
        stage=memory.stage,
        weight_bytes=int(memory.weight_bytes_per_pe.sum()),
        kv_cache_bytes=int(memory.kv_cache_bytes_per_pe.sum()),
        peak_bytes_per_pe=memory.peak_bytes_per_pe,
        capacity_bytes_per_pe=memory.capacity_bytes_per_pe,
        root_bytes=memory.root_bytes,
        root_capacity_bytes=memory.root_capacity_bytes,
    )
