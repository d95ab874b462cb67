"""Moves of a placed step: reductions and messages of what units hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pe_sim.graph.operators import Element
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import Move, MoveKind, Work
from pe_sim.mapping.placement import Placement, Replicate, Shard
from pe_sim.schedule.stages import MessageStage, TreeStage
from tests.rtl.commands import Combine
from tests.rtl.hardware import UnfitError
from tests.rtl.layer.layer_values import (
    ACTIVATION,
    CANDIDATE,
    SUM,
    Held,
    Job,
    StepLowering,
    columns_of,
    rows_of,
)
from tests.rtl.programs.lowering import Passage, Piece, Ready, add_messages, add_reductions


def lower_local(step: StepLowering, node: Move, layouts: Layouts, support: Mapping[int, Placement]) -> None:
    """A free move: a slice of what is there already; all else is taken for zero where it becomes a term of a sum."""
    for source, target in zip(node.inputs, node.outputs, strict=True):
        part = support.get(target.key, target.placement)
        if not isinstance(part, Shard) or not isinstance(source.placement, Replicate | Shard):
            raise UnfitError(f"the RTL has no {node.label} from {source.placement} to {target.placement}")
        columns = columns_of(target.tensor, part, layouts, step.pes, step.root)
        held = step.values[source.key].sliced(columns)
        step.hold(target, replace(held, terms=part != target.placement))


def lower_select(step: StepLowering, node: Work, layouts: Layouts) -> None:
    """The last row of every feature, or all."""
    source, target = step.values[node.inputs[0].key], node.outputs[0]
    rows = rows_of(target.tensor, layouts)
    skipped = (source.rows - rows) * source.width
    addresses = {unit: address + skipped for unit, address in source.addresses.items()}
    step.hold(target, replace(source, key=(step.layer, target.tensor.name), addresses=addresses, rows=rows))


def lower_move(step: StepLowering, job: Job) -> Ready:
    """A move that takes time."""
    node = job.node
    assert isinstance(node, Move)
    match node.kind:
        case MoveKind.REDUCE:
            return _reduce(step, job, node)
        case MoveKind.BROADCAST:
            return _broadcast(step, job, node)
        case MoveKind.SCATTER | MoveKind.GATHER | MoveKind.ALL_GATHER | MoveKind.UNICAST:
            return _slices(step, job, node)
        case _:
            raise UnfitError(f"the RTL has no {node.label}")


def _reduce(step: StepLowering, job: Job, node: Move) -> Ready:
    stage = job.stage
    assert isinstance(stage, TreeStage)
    if not stage.at_root:
        raise UnfitError(f"the RTL has no results of {node.label} at joints that are then divided up")
    sources = [step.values[value.key] for value in node.inputs]
    width, whole = sources[0].width, sum(source.whole_bytes for source in sources)
    assert all(source.width == width for source in sources)
    assert whole == int(stage.num_bytes[0])
    pieces = {pe: _piece(node, sources, pe) for pe in step.pes if stage.active[pe]}
    address = step.spaces[True].take(whole)
    _hold_side_by_side(step, node, sources, [step.root], address, width)
    merges = node.combine == "softmax"
    return add_reductions(
        step.case, stage, job.order, job.inputs, pieces, address, _combine(node, width), merges=merges
    )


def _combine(node: Move, width: int) -> Combine:
    if node.combine == "max" and width == CANDIDATE:
        return Combine.ARGMAX64
    if node.combine in ("sum", "softmax"):
        return Combine.SUM32 if width == SUM else Combine.SUM16
    raise UnfitError(f"the RTL has no {node.label} by {node.combine}")


def _piece(node: Move, sources: list[Held], pe: int) -> Piece:
    """A PE's part of the concatenated payload, which has to be one piece of its buffer."""
    before, pieces = 0, []
    for source in sources:
        pieces.append(Piece(source.addresses[pe], before + source.offset(pe), source.num_bytes(pe)))
        before += source.whole_bytes
    first, size = pieces[0], pieces[0].num_bytes
    for piece in pieces[1:]:
        if (piece.address, piece.first) != (first.address + size, first.first + size):
            raise UnfitError(f"the RTL has no {node.label} of several pieces of a buffer")
        size += piece.num_bytes
    return Piece(first.address, first.first, size)


def _broadcast(step: StepLowering, job: Job, node: Move) -> Ready:
    stage, sources = job.stage, [step.values[value.key] for value in node.inputs]
    assert isinstance(stage, MessageStage)
    narrows = sources[0].width == SUM and node.inputs[0].tensor.element is Element.ACTIVATION
    if len({(source.width, source.shift) for source in sources}) > 1:
        raise UnfitError(f"the RTL has no {node.label} of unlike elements")
    unit = step.root
    piece = _piece(node, sources, unit)
    width = ACTIVATION if narrows else sources[0].width
    address = step.spaces[False].take(piece.num_bytes * width // sources[0].width)
    assert piece.num_bytes * width // sources[0].width == int(stage.num_bytes[0])
    _hold_side_by_side(step, node, sources, list(step.pes), address, width)
    passages = [Passage(piece.address, address, narrows, sources[0].shift if narrows else 0)]
    return add_messages(step.case, stage, job.order, job.inputs, passages)


def _hold_side_by_side(
    step: StepLowering, node: Move, sources: list[Held], units: list[int], address: int, width: int
) -> None:
    """The whole of every output, one behind the other, on some units."""
    shift = sources[0].shift if width == sources[0].width else 0
    for source, target in zip(sources, node.outputs, strict=True):
        held = replace(
            source,
            addresses=dict.fromkeys(units, address),
            columns=dict.fromkeys(units, (0, source.size)),
            width=width,
            pitch=source.rows * width,
            shift=shift,
            terms=False,
        )
        step.hold(target, held)
        address += held.whole_bytes


def _slices(step: StepLowering, job: Job, node: Move) -> Ready:
    """One message a slice, from or to a whole."""
    stage = job.stage
    assert isinstance(stage, MessageStage)
    if len(node.inputs) > 1:
        raise UnfitError(f"the RTL has no {node.label} of several tensors")
    source, target = step.values[node.inputs[0].key], node.outputs[0]
    narrows = source.width == SUM and target.tensor.element is Element.ACTIVATION
    width = ACTIVATION if narrows else source.width
    held = step.new(target, job.layouts, width, source.key, shift=0 if narrows else source.shift)
    shift = source.shift if narrows else 0
    passages = []
    for message, sender in enumerate(stage.source.tolist()):
        if stage.from_pe:  # a slice to where it is in the whole
            out = next(iter(held.addresses.values())) + source.offset(sender)
            passages.append(Passage(source.addresses[sender], out, narrows, shift))
            assert source.num_bytes(sender) == int(stage.num_bytes[message])
        else:  # a slice of the whole to the PE that keeps it
            pe = int(stage.target[message])
            at = source.addresses[step.root] + held.columns[pe][0] * source.pitch
            passages.append(Passage(at, held.addresses[pe], narrows, shift))
            assert held.num_bytes(pe) == int(stage.num_bytes[message])
    return add_messages(step.case, stage, job.order, job.inputs, passages)
