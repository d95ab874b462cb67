"""Which nodes differ in nothing but names: what holds for the sizes and costs of one of them holds for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from pe_sim.graph.operators import Operator
from pe_sim.graph.tensors import Tensor
from pe_sim.mapping.placed import Node, Work
from pe_sim.mapping.placement import Placement

_NAMES = ("name", "inputs", "outputs", "bundle")  # fields of operators; the outputs count without their names


def likeness(node: Node, support: Mapping[int, Placement]) -> tuple[object, ...]:
    """Equal for nodes that do the same to operands of the same sizes in the same placements.

    Args:
        node: local work, or a move.
        support: which slices of Partial values are not zero, by the value's key.
    """
    operands = tuple(
        tuple((*_nameless(value.tensor), value.placement, support.get(value.key)) for value in values)
        for values in (node.inputs, node.outputs)
    )
    if isinstance(node, Work):
        return (*_facts(node.operator), node.function, node.distribution, operands)
    return (*_facts(node.operator), node.kind, node.scope, node.partial_dtype, node.combine, node.sender, operands)


def _facts(operator: Operator) -> tuple[object, ...]:
    outputs = tuple(_nameless(tensor) for tensor in operator.outputs)
    rest = tuple(getattr(operator, entry.name) for entry in fields(operator) if entry.name not in _NAMES)
    return (type(operator), len(operator.inputs), outputs, rest)


def _nameless(tensor: Tensor) -> tuple[object, ...]:
    return (tensor.dim, tensor.size, tensor.rows, tensor.element)
