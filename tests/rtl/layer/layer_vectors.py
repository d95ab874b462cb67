"""Vector functions of a placed step, at the PEs and at the root."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pe_sim.mapping.placed import Work
from pe_sim.mapping.placement import Partial, Root
from pe_sim.schedule.local_work import table_entries
from pe_sim.schedule.stages import PeStage, RootStage
from pe_sim.units import ceil_div
from tests.rtl.commands import Function, Op
from tests.rtl.hardware import UnfitError
from tests.rtl.layer.integer_model import PRODUCT_SHIFT, VALUES_SHIFT
from tests.rtl.layer.layer_values import ACTIVATION, CANDIDATE, SUM, Held, Job, StepLowering
from tests.rtl.programs.lowering import FixedWait, add_work, all_waits, delivered_waits

Fields = Mapping[str, int]


def units_of(step: StepLowering, job: Job) -> list[int]:
    """Who does a node's work.

    Raises:
        UnfitError: somebody takes part without work.
    """
    stage = job.stage
    if isinstance(stage, RootStage):
        if stage.cycles.tolist() == [0]:
            raise UnfitError(f"the RTL has no {stage.name} of nothing")
        return [step.root]
    assert isinstance(stage, PeStage)
    units = [int(pe) for pe in np.flatnonzero(stage.active)]
    if stage.matrix is None and not stage.cycles[stage.active].all():
        raise UnfitError(f"the RTL has no {stage.name} of nothing, by PEs that take part")
    return units


def work_of(job: Job) -> Work:
    """The node of a job that is work."""
    assert isinstance(job.node, Work)
    return job.node


def vector(step: StepLowering, job: Job, elements: Mapping[int, int], fields: Mapping[int, Fields]) -> None:
    """One vector command a unit, for so many elements as the model counts them; `fields` say what is computed."""
    array, node, stage = step.placed.array, work_of(job), job.stage
    for unit in units_of(step, job):
        at_root = unit == step.root
        machine = array.root.vector if at_root else array.pe.vector
        steps = int(ceil_div(elements[unit], machine.lanes))
        step_cycles = sum(machine.cycles_per_element[entry] for entry in table_entries(node))
        cycles = steps * step_cycles + machine.latency_cycles
        assert isinstance(stage, PeStage | RootStage)
        assert cycles == int(stage.cycles[0 if at_root else unit]), (stage.name, unit)
        shape = {"op": Op.VECTOR, "steps": steps, "step_cycles": step_cycles}
        waits = (all_waits if at_root else delivered_waits)(job.inputs, unit)
        add_work(step.case, unit, job.order, "vector", {**shape, **fields[unit]}, waits, cycles, stage.name)


def fixed_wait(step: StepLowering, job: Job, stands_in: str) -> None:
    """Notes that the RTL has no unit for a function."""
    stage = job.stage
    assert isinstance(stage, PeStage | RootStage)
    step.case.fixed_waits.append(FixedWait(job.order, stage.name, int(stage.cycles.max()), stands_in))


def operand(name: str, held: Held, unit: int) -> dict[str, int]:
    """Fields of operand or result `name`: a, b or out."""
    if held.width not in (ACTIVATION, SUM):
        raise UnfitError(f"the RTL has no vectors of {held.key[1]}")
    held.num_bytes(unit)  # raises unless they lie together
    return {f"{name}_addr": held.addresses[unit], f"{name}_narrow": int(held.width == ACTIVATION)}


def lower_copy(step: StepLowering, job: Job) -> None:
    """A norm, or its last part: what comes in goes out."""
    node = work_of(job)
    source, target = step.values[node.inputs[0].key], node.outputs[0]
    units = units_of(step, job)
    elements = {unit: source.elements(unit) for unit in units}
    if not source.is_dense:  # some rows of several
        step.hold(target, replace(source, key=(step.layer, target.tensor.name)))
        fixed_wait(step, job, "nothing is done with the rows that were selected")
        vector(step, job, elements, {unit: {} for unit in units})
        return
    held = step.new(target, job.layouts, ACTIVATION)
    fixed_wait(step, job, "a copy")
    fields = {
        unit: {
            "operation": Function.COPY,
            "elements": elements[unit],
            **operand("a", source, unit),
            **operand("out", held, unit),
        }
        for unit in units
    }
    vector(step, job, elements, fields)


def lower_sum_of_squares(step: StepLowering, job: Job) -> None:
    """Each PE gives the first feature of its slice, widened; the reference gets the sum of all PEs'."""
    node = work_of(job)
    source, target = step.values[node.inputs[0].key], node.outputs[0]
    if target.tensor.size != 1:
        raise UnfitError("the RTL has no LayerNorm")
    held = step.new(target, job.layouts, SUM, terms=True)
    units = units_of(step, job)
    fixed_wait(step, job, "the first feature of the slice")
    fields = {
        unit: {
            "operation": Function.COPY,
            "elements": source.rows,
            **operand("a", source, unit),
            **operand("out", held, unit),
        }
        for unit in units
    }
    vector(step, job, {unit: source.elements(unit) for unit in units}, fields)
    firsts = [source.columns[unit][0] for unit in units]
    step.reference.sums[held.key] = step.reference.tensors[source.key][:, firsts].sum(axis=1, keepdims=True)


def lower_add(step: StepLowering, job: Job) -> None:
    """A sum of activations, or of terms: in place, on the slice of the stream that is added, shifted left."""
    node = work_of(job)
    left, right = (step.values[value.key] for value in node.inputs)
    target = node.outputs[0]
    units = units_of(step, job)
    if isinstance(target.placement, Partial):
        stream, sums = (left, right) if left.width == ACTIVATION else (right, left)
        if sums.width != SUM or stream.width != ACTIVATION:
            raise UnfitError(f"the RTL has no {job.stage.name} of these terms")
        step.hold(target, replace(sums, key=(step.layer, target.tensor.name)))
        result = place = sums.sliced({unit: stream.columns[unit] for unit in units})
        first, second, shift = place, stream, sums.shift
    else:
        if {left.width, right.width} != {ACTIVATION}:
            raise UnfitError(f"the RTL has no {job.stage.name} of sums")
        result, first, second, shift = step.new(target, job.layouts, ACTIVATION), left, right, 0
    fields = {
        unit: {
            "operation": Function.ADD,
            "elements": second.elements(unit),
            **operand("a", first, unit),
            **operand("b", second, unit),
            "b_shift": shift,
            "b_period": second.elements(unit),
            **operand("out", result, unit),
        }
        for unit in units
    }
    vector(step, job, {unit: second.elements(unit) for unit in units}, fields)


def lower_silu_mul(step: StepLowering, job: Job) -> None:
    """Gate times up, shifted right."""
    node = work_of(job)
    gate, up = (step.values[value.key] for value in node.inputs)
    if up.width == SUM and up.shift:
        raise UnfitError("the RTL has no second operand that is shifted right")
    held, units = step.new(node.outputs[0], job.layouts, ACTIVATION), units_of(step, job)
    fixed_wait(step, job, "gate times up, without SiLU")
    fields = {
        unit: {
            "operation": Function.MUL,
            "elements": held.elements(unit),
            **operand("a", gate, unit),
            "a_shift": gate.shift if gate.width == SUM else 0,
            **operand("b", up, unit),
            "b_period": held.elements(unit),
            **operand("out", held, unit),
            "out_shift": PRODUCT_SHIFT,
        }
        for unit in units
    }
    vector(step, job, {unit: held.elements(unit) for unit in units}, fields)


def lower_softmax_merge(step: StepLowering, job: Job) -> None:
    """The weighted values that were summed up, shifted right; they come before the statistics."""
    node = work_of(job)
    sums, held = step.values[node.inputs[0].key], step.new(node.outputs[0], job.layouts, ACTIVATION)
    assert sums.shift == VALUES_SHIFT
    fixed_wait(step, job, "a shift")
    elements = held.elements(step.root)
    fields = {
        "operation": Function.COPY,
        "elements": elements,
        **operand("a", sums, step.root),
        "a_shift": sums.shift,
        **operand("out", held, step.root),
    }
    vector(step, job, {step.root: elements}, {step.root: fields})


def lower_rope(step: StepLowering, job: Job) -> None:
    """Nothing: what comes out is what comes in."""
    node = work_of(job)
    units, sources = units_of(step, job), [step.values[value.key] for value in node.inputs]
    for source, target in zip(sources, node.outputs, strict=True):
        step.hold(target, replace(source, key=(step.layer, target.tensor.name)))
    fixed_wait(step, job, "nothing")
    elements = {unit: sum(source.elements(unit) for source in sources) for unit in units}
    vector(step, job, elements, {unit: {} for unit in units})


def lower_argmax(step: StepLowering, job: Job) -> None:
    """The largest of a PE's slice; at the root the joints have compared already."""
    node = work_of(job)
    source, target = step.values[node.inputs[0].key], node.outputs[0]
    units = units_of(step, job)
    if source.width == CANDIDATE:
        step.hold(target, source)
        fixed_wait(step, job, "nothing: the joints have compared")
        vector(step, job, {step.root: source.rows}, {step.root: {}})
        return
    if isinstance(target.placement, Root):
        raise UnfitError("the RTL has no argmax of sums")
    held = step.new(target, job.layouts, CANDIDATE, terms=True)
    several = source.rows > 1
    if several:
        fixed_wait(step, job, "nothing: there are several rows")
    fields = {
        unit: {}
        if several
        else {
            "operation": Function.ARGMAX,
            "elements": source.elements(unit),
            **operand("a", source, unit),
            "out_addr": held.addresses[unit],
            "index_base": source.columns[unit][0],
        }
        for unit in units
    }
    vector(step, job, {unit: source.elements(unit) for unit in units}, fields)
