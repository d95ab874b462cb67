"""Lowers one primitive move to messages on the bus or reductions in the tree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import Move, MoveKind, Value
from pe_sim.mapping.placement import Root
from pe_sim.schedule.builders import (
    Labels,
    Scopes,
    forward,
    hub_to_pes,
    hub_to_scopes,
    pes_to_scopes,
    reduction,
    weight_stream,
)
from pe_sim.schedule.stages import Stage, Tag
from pe_sim.units import BoolArray, IntArray, ceil_div, total

_FROM_PES = {MoveKind.GATHER: Tag.GATHER, MoveKind.ALL_GATHER: Tag.ALL_GATHER, MoveKind.UNICAST: Tag.UNICAST}


def lower_move(
    node: Move, inputs: tuple[int, ...], output: int, senders: BoolArray, array: ArrayConfig, layouts: Layouts
) -> Stage:
    """The stage of a move over one bus and one tree; `senders` are the PEs that hold some of its input."""
    payload = Payload(node, layouts)
    scopes = payload.scopes()
    labels = Labels(node.label, node.operator.name, inputs, output)
    from_root = isinstance(node.inputs[0].placement, Root)
    to_root = isinstance(node.outputs[0].placement, Root)
    scope_of_pe = layouts.groups.group_of_pe
    match node.kind:
        case MoveKind.REDUCE:
            sent = payload.per_scope(partial=node.partial_dtype)
            softmax = node.combine == "softmax"
            return reduction(labels, array, scopes, sent, senders, at_root=to_root, softmax=softmax)
        case MoveKind.BROADCAST:
            return hub_to_scopes(labels, array, scopes, payload.per_scope(partial=False), from_root=from_root)
        case MoveKind.SCATTER:
            return hub_to_pes(labels, scope_of_pe, scopes, payload.per_pe(outputs=True), from_root=from_root)
        case MoveKind.GATHER | MoveKind.ALL_GATHER:
            sent = payload.per_pe(outputs=False)
        case MoveKind.UNICAST:
            sent = np.zeros(array.num_pes, dtype=np.int64)
            sent[layouts.groups.lowest] = payload.per_scope(partial=False)
        case MoveKind.FORWARD:
            return forward(labels, array, node.sender, scopes, payload.per_scope(partial=False))
        case MoveKind.WEIGHT_STREAM:
            sent = np.array([node.operator.weight_bytes(array.dtypes)], dtype=np.int64)
            return weight_stream(labels, array, sent)
        case _:
            raise ValueError(f"a {node.kind} move needs no stage")
    return pes_to_scopes(labels, _FROM_PES[node.kind], scope_of_pe, scopes, sent, to_root=to_root)


@dataclass(frozen=True)
class Payload:
    """Bytes of the messages of a move, in which all its values travel concatenated."""

    node: Move
    layouts: Layouts

    def scopes(self) -> Scopes:
        """The scopes of the move: the groups, the PEs that share a query head, or the rows of a grid."""
        return Scopes(*self.layouts.scopes(self.node.scope))

    def per_scope(self, *, partial: bool) -> IntArray:
        """(scopes,) bytes of the whole message of each scope."""
        values = self.node.inputs
        if self.node.scope == "group":
            return total(self.layouts.group_bytes(value.tensor, partial=partial) for value in values)
        if self.node.scope != "head":
            return total(self._per_row(value, partial=partial) for value in self._sliced)
        speakers, split = self.layouts.first_entry(self.layouts.scope_speakers("head")), self.layouts.head_split
        elements = (split.q_heads * split.row_sum(1))[..., speakers]
        return ceil_div(elements * self.layouts.element_bits(values[0].tensor, partial=partial), 8)

    @property
    def _sliced(self) -> tuple[Value, ...]:
        """The values that say which slice the PEs of a row hold: the terms of a reduction, or what comes back of it."""
        return self.node.inputs if self.node.kind is MoveKind.REDUCE else self.node.outputs

    def _per_row(self, value: Value, *, partial: bool) -> IntArray:
        """(scopes,) bytes of the slice that all PEs of each row of a grid have terms of."""
        tensor, where, layouts = value.tensor, value.placement, self.layouts
        elements = layouts.pe_rows(tensor.rows, where) * layouts.pe_columns(tensor.dim, tensor.size, where)
        of_rows = elements.reshape(-1, elements.shape[-1])[0, layouts.first_entry(self.scopes().first_pe)]
        num_bytes: IntArray = ceil_div(of_rows * layouts.element_bits(tensor, partial=partial), 8)
        return num_bytes  # the same in every step

    def per_pe(self, *, outputs: bool) -> IntArray:
        """(PEs,) bytes of each PE's slice."""
        values = self.node.outputs if outputs else self.node.inputs
        slices = total(self.layouts.pe_bytes(value.tensor, value.placement) for value in values)
        return slices.reshape(-1)  # the same in every step, where there are several
