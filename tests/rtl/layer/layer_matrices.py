"""GEMMs of a placed step, and the embedding lookup at the root."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pe_sim.graph.operators import Linear
from pe_sim.mapping.placement import Partial, Root
from pe_sim.schedule.matrix import MatrixTiming, rows_per_pass, works_of
from pe_sim.schedule.stages import PeStage, RootStage
from pe_sim.units import ceil_div
from tests.rtl.commands import Op
from tests.rtl.hardware import UnfitError
from tests.rtl.layer.integer_model import SHIFTS
from tests.rtl.layer.layer_values import ACTIVATION, SUM, Job, StepLowering, columns_of
from tests.rtl.layer.layer_vectors import units_of, work_of
from tests.rtl.programs.lowering import Difference, add_work, delivered_waits
from tests.rtl.programs.tiles import MatrixCycles, Tiles, matrix_cycles

Fields = Mapping[str, int]


def lower_matrix(step: StepLowering, job: Job) -> None:
    """A GEMM of every PE's part of the weights."""
    node = work_of(job)
    operator, source, target = node.operator, step.values[node.inputs[0].key], node.outputs[0]
    assert isinstance(operator, Linear)
    if len(node.inputs) > 1 or operator.bias:
        raise UnfitError("the RTL has no streamed weights and no bias")
    is_sum = isinstance(target.placement, Partial)
    shift = SHIFTS[operator.name]
    held = step.new(target, job.layouts, SUM if is_sum else ACTIVATION, shift=shift if is_sum else 0, terms=is_sum)
    weights = step.weights.matrices[step.layer, operator.name].astype(np.int8)
    units, parts = units_of(step, job), {}
    inner_of = columns_of(node.inputs[0].tensor, node.inputs[0].placement, job.layouts, step.pes, step.root)
    for unit in units:
        assert inner_of[unit] == source.columns[unit]
        outer, inner = (slice(first, first + count) for first, count in (held.columns[unit], inner_of[unit]))
        parts[unit] = weights[outer, inner]
    tiles = {unit: Tiles.on(step.hardware, *part.shape) for unit, part in parts.items()}
    address = step.memory.take(max(tile.num_bytes for tile in tiles.values()))
    for unit in units:
        outer_size, inner_size = parts[unit].shape
        step.case.program.units[unit].memory.append((address, tiles[unit].pack(parts[unit])))
        most = rows_per_pass(step.placed.array, np.array([inner_size]), np.array([outer_size]))
        fields = {
            **tiles[unit].fields(),
            "rows": source.rows,
            "pass_rows": min(int(most[0]), source.rows),
            "batch": 1,
            "in_addr": source.addresses[unit],
            "in_row_pitch": source.width,
            "in_column_pitch": source.pitch,
            "out_addr": held.addresses[unit],
            "out_row_pitch": held.width,
            "out_column_pitch": held.pitch,
            "out_narrow": int(not is_sum),
            "shift": 0 if is_sum else shift,
            "weight_addr": address,
        }
        add_matrix(step, job, unit, fields)


def add_matrix(step: StepLowering, job: Job, unit: int, fields: Fields, *, attention: bool = False) -> None:
    """One matrix command; its cycles are predicted tile by tile, and the model's have to be the model's."""
    stage, double_buffered = job.stage, step.placed.array.overlap > 0
    assert isinstance(stage, PeStage)
    assert stage.matrix is not None
    shape = (fields["rows"], fields["inner"], fields["outer"], fields["pass_rows"])
    cycles = matrix_cycles(
        step.hardware, *shape, double_buffered=double_buffered, batch=fields["batch"], attention=attention
    )
    model = MatrixTiming(step.placed.array).span(works_of(stage.matrix)[unit], 0).duration_cycles
    assert cycles.model == model, (stage.name, unit, cycles, model)
    _note_difference(step, job, unit, cycles)
    waits = delivered_waits(job.inputs, unit)
    command = {**fields, "op": Op.MATRIX, "double_buffered": int(double_buffered)}
    add_work(step.case, unit, job.order, "matrix", command, waits, cycles.total, stage.name)


def _note_difference(step: StepLowering, job: Job, unit: int, cycles: MatrixCycles) -> None:
    if cycles.total != cycles.model:
        step.case.differences.append(Difference(job.order, unit, job.stage.name, cycles.model, cycles))


def lower_embedding(step: StepLowering, job: Job) -> None:
    """The rows of the table, which the root's memory holds in the buffer's order: feature after feature."""
    node = work_of(job)
    if not isinstance(node.outputs[0].placement, Root) or len(node.outputs) > 1:
        raise UnfitError("the RTL has no such embedding")
    held = step.new(node.outputs[0], job.layouts, ACTIVATION)
    data = step.reference.tensors[held.key].T.astype(np.int8).tobytes()
    stage, hardware, address = job.stage, step.hardware, step.root_memory.take(len(data))
    assert isinstance(stage, RootStage)
    step.case.program.root.memory.append((address, data))
    cycles = hardware.root_memory_latency + int(ceil_div(len(data), hardware.root_memory_bytes_per_cycle))
    assert cycles == int(stage.cycles[0])
    fields = {
        "op": Op.LOAD,
        "in_addr": address,
        "out_addr": held.addresses[step.root],
        "num_bytes": len(data),
        "widens": 1,
    }
    add_work(step.case, step.root, job.order, "load", fields, (), cycles, stage.name)
