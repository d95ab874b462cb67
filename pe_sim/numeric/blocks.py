"""Runs the nodes of one block: each takes what the ones before it gave, and every piece is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pe_sim.graph.operators import KvAppend
from pe_sim.mapping.placed import Move, MoveKind, Node, PlacedBlock, Value, Work
from pe_sim.numeric.arrays import Array, PlacementError
from pe_sim.numeric.attention import CacheSlice
from pe_sim.numeric.geometry import Geometry, Pieces
from pe_sim.numeric.moves import Mover
from pe_sim.numeric.work import Worker

Held = dict[int, Pieces]  # by the key of a value


def run_node(node: Node, held: Held, worker: Worker, mover: Mover) -> None:
    """Adds what a node gives to what is held.

    Raises:
        PlacementError: what it needs is not there, or what it gives is not what its placement says.
    """
    name = name_of(node)
    if isinstance(node, Move) and node.kind is MoveKind.WEIGHT_STREAM:
        outputs = mover.run(node, [])
        worker.streamed[node.operator.name] = outputs[0]
    else:
        inputs = [piece_of(held, value, name) for value in node.inputs]
        _check_inputs(node, inputs, worker.geometry)
        outputs = _guarded(name, mover if isinstance(node, Move) else worker, node, inputs)
    for value, pieces in zip(node.outputs, outputs, strict=True):
        worker.geometry.check(value, pieces, name)
        held[value.key] = pieces


def piece_of(held: Held, value: Value, who: str) -> Pieces:
    """What is held of a value.

    Raises:
        PlacementError: nothing is.
    """
    if value.key not in held:
        raise PlacementError(f"{who} needs {value.tensor.name} as {value.placement}, which nothing gives")
    return held[value.key]


def caches_before(
    block: PlacedBlock, geometry: Geometry, cached: tuple[list[Array], list[Array]] | None, *, causal: bool
) -> tuple[CacheSlice | None, ...]:
    """What every PE holds of a layer's cache before the step.

    Args:
        cached: the (context, kv heads * head_dim) keys and values of every sequence; None outside the layers.
    """
    appends = (node for node in block.nodes if isinstance(node.operator, KvAppend) and isinstance(node, Work))
    work = next(appends, None)
    if work is None or cached is None:
        return ()
    (keys, values), source = cached, work.inputs[0]

    def fill(pe: int) -> CacheSlice:
        part = geometry.attention(work.distribution, pe, causal=causal)
        return part.cached_slice(keys, values, geometry.columns_of(source, pe))

    return geometry.map(work.outputs[0].placement, fill)


def name_of(node: Node) -> str:
    """What a person calls a node."""
    if isinstance(node, Move):
        return node.label
    return (
        node.operator.name
        if node.function in ("matrix", node.operator.name)
        else f"{node.operator.name}: {node.function}"
    )


def _check_inputs(node: Node, inputs: list[Pieces], geometry: Geometry) -> None:
    if isinstance(node, Move) and node.kind is MoveKind.FORWARD:
        return
    for value, pieces in zip(node.inputs, inputs, strict=True):
        geometry.check(value, pieces, name_of(node))


def _guarded(name: str, runner: Mover | Worker, node: Any, inputs: list[Pieces]) -> list[Pieces]:
    """NumPy refuses what cannot be: that is the placed graph's fault."""
    try:
        outputs: list[Pieces] = runner.run(node, inputs)
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise PlacementError(f"{name}: {error}") from error
    return outputs


NodeHook = Callable[[Node, Value, Pieces], None]


def run_nodes(block: PlacedBlock, held: Held, worker: Worker, mover: Mover, after: NodeHook) -> None:
    """All nodes of a block in program order; `after` sees every value that one gives."""
    for node in block.nodes:
        run_node(node, held, worker, mover)
        for value in node.outputs:
            after(node, value, held[value.key])
