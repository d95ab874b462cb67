"""The operator graph of one step: a prologue, one layer that repeats, an epilogue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pe_sim.graph.operators import AttentionShape, Operator

if TYPE_CHECKING:
    import networkx

STREAM = "stream"  # the tensor that enters and leaves every layer


@dataclass(frozen=True, slots=True)
class OperatorGraph:
    """Operators in program order. A layer reads the tensor `stream` and ends by writing the next one.

    Args:
        prologue, layer, epilogue: in program order; the layer is the same for all `num_layers`.
        shape: attention geometry of the step.
        selected_per_sequence: rows of each sequence that the epilogue works on; None: every new row.
        select: which rows those are: the last or the first of each sequence.
        keeps_cache: whether K and V outlive their layer (an encoder's do not).
    """

    prologue: tuple[Operator, ...]
    layer: tuple[Operator, ...]
    epilogue: tuple[Operator, ...]
    num_layers: int
    shape: AttentionShape
    selected_per_sequence: int | None
    select: str = "last"
    keeps_cache: bool = True

    @property
    def distinct(self) -> tuple[Operator, ...]:
        """Every operator once, in program order."""
        return *self.prologue, *self.layer[: self.num_layers * len(self.layer)], *self.epilogue

    def instances(self) -> Iterator[tuple[int | None, Operator]]:
        """Every operator of the step in program order with its layer (None outside the layers)."""
        yield from ((None, operator) for operator in self.prologue)
        for layer in range(self.num_layers):
            yield from ((layer, operator) for operator in self.layer)
        yield from ((None, operator) for operator in self.epilogue)

    def to_networkx(self) -> networkx.DiGraph:
        """The step as a networkx DAG: nodes `layers.3.q`, attribute `operator`; edges carry the tensor's name."""
        import networkx  # heavy, and only needed when somebody looks at the graph

        dag = networkx.DiGraph()
        producer: dict[str, str] = {}
        scope: int | None = None
        for layer, operator in self.instances():
            if layer != scope:  # only the stream crosses a block's border
                producer = {STREAM: producer[STREAM]} if STREAM in producer else {}
                scope = layer
            node = operator.name if layer is None else f"layers.{layer}.{operator.name}"
            dag.add_node(node, operator=operator, layer=layer)
            for tensor in operator.inputs:
                dag.add_edge(producer[tensor], node, tensor=tensor)
            for output in operator.outputs:
                producer[output.name] = node
        return dag
