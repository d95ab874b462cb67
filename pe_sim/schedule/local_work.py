"""Costs of local work where it runs: matrix, vector, memory port and root (machine model, sections 4 and 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig, VectorUnit
from pe_sim.graph.operators import AttentionOperator, Embedding, Linear, Receive
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import Value, Work
from pe_sim.mapping.placement import Partial, Placement, Shard
from pe_sim.schedule.builders import STREAMING_OVERLAP
from pe_sim.schedule.matrix import gemm_work, scores_work, sum_over_heads, values_work
from pe_sim.schedule.memory_timing import memory_timing
from pe_sim.schedule.stages import MatrixWork, Resource
from pe_sim.units import BoolArray, IntArray, ceil_div, total

# Functions whose cost is a sum of entries of the table: LayerNorm reduces sums and squares, and adds a bias.
_TABLE_ENTRIES: dict[tuple[str, str], tuple[str, ...]] = {
    ("sum_of_squares", "layernorm"): ("add", "sum_of_squares"),
    ("scale", "layernorm"): ("scale", "add"),
}
_SAME_COST: dict[str, str] = {"gelu_tanh": "gelu", "bias": "add"}
_ONE_A_ROW = ("sum_of_squares", "argmax")  # their outputs are next to nothing beside their inputs


@dataclass(frozen=True, slots=True)
class LocalWork:
    """Work on the PEs; the fields are those of `PeStage`."""

    resource: Resource
    active: BoolArray
    cycles: IntArray
    matrix: MatrixWork | None = None
    read_bytes: int = 0
    tail_cycles: IntArray | None = None
    written_bytes: int = 0
    operations: int = 0
    input_bytes: int = 0
    output_bytes: int = 0


def local_work(node: Work, array: ArrayConfig, layouts: Layouts, support: Mapping[int, Placement]) -> LocalWork:
    """The work of a node on the PEs; `support` says which slice of a Partial value is not zero."""
    matrix = matrix_work(node, array, layouts)
    if matrix is not None:
        tail = tail_cycles(node, array, layouts) if array.overlap >= STREAMING_OVERLAP else None
        return LocalWork(Resource.PE_MATRIX, matrix.last_compute_cycles > 0, layouts.nothing, matrix, 0, tail)
    if isinstance(node.operator, Embedding):
        cycles, read_bytes = lookup(node, array, layouts)
        return LocalWork(Resource.PE_MEMORY, cycles > 0, cycles, None, read_bytes)
    if isinstance(node.operator, Receive):
        return LocalWork(Resource.PE_VECTOR, holders(node.outputs[0], layouts), layouts.nothing)
    if node.function == "kv_append":
        cycles, written = kv_append(node, array, layouts)
        return LocalWork(Resource.PE_MEMORY, cycles > 0, cycles, written_bytes=written)
    return vector_work(node, array, layouts, support)


def holders(value: Value, layouts: Layouts) -> BoolArray:
    """(PEs,) whether each has some of a value."""
    if isinstance(value.placement, Shard):
        return _held(value, layouts) > 0
    return layouts.is_member


def matrix_work(node: Work, array: ArrayConfig, layouts: Layouts) -> MatrixWork | None:
    """The matrix work of a node, None if it is no matrix operator."""
    if node.function == "matrix":
        operator = node.operator
        assert isinstance(operator, Linear)
        source, target = node.inputs[0], node.outputs[0]
        return gemm_work(
            array,
            layouts.pe_rows(target.tensor.rows, target.placement),
            layouts.pe_columns(operator.in_dim, operator.in_size, source.placement),
            layouts.pe_columns(operator.out_dim, operator.out_size, target.placement),
            resident=all(value.tensor.dim != "weight" for value in node.inputs),
        )
    if node.function in ("scores", "values"):
        split = layouts.attention_split(_attention_distribution(node, layouts))
        return (scores_work if node.function == "scores" else values_work)(array, split)
    return None


def tail_cycles(node: Work, array: ArrayConfig, layouts: Layouts) -> IntArray | None:
    """(PEs,) cycles a GEMM still needs after the tail of a streamed input: m ceil(n / R) + Lm; None for attention."""
    operator, target = node.operator, node.outputs[0]
    if not isinstance(operator, Linear):
        return None
    rows = layouts.pe_rows(target.tensor.rows, target.placement)
    columns = layouts.pe_columns(operator.out_dim, operator.out_size, target.placement)
    return rows * ceil_div(columns, array.pe.matrix.outputs) + array.pe.matrix.latency_cycles


def kv_append(node: Work, array: ArrayConfig, layouts: Layouts) -> tuple[IntArray, int]:
    """(PEs,) cycles of the memory port to write the new K and V on their owners, and bytes written by all PEs."""
    split = layouts.attention_split(_attention_distribution(node, layouts))
    written = 2 * np.asarray(array.dtypes.kv_cache.matrix_bytes(split.new_tokens() * split.kv_heads, split.dims))

    def pieces(cycles_of: Callable[[IntArray], IntArray]) -> IntArray:
        return 2 * sum_over_heads(split, array.dtypes.kv_cache, split.over_new, cycles_of)

    return memory_timing(array.pe.memory).write_cycles(written, pieces), int(written.sum())


def lookup(node: Work, array: ArrayConfig, layouts: Layouts) -> tuple[IntArray, int]:
    """(PEs,) cycles of the memory port to read embedding rows, and bytes read by all PEs.

    Each PE reads from its own copy of the tables.
    """
    operator, weight = node.operator, array.dtypes.weight
    assert isinstance(operator, Embedding)
    rows = layouts.pe_rows(node.outputs[0].tensor.rows, node.outputs[0].placement) * len(operator.table_rows)
    read = np.asarray(weight.matrix_bytes(rows, operator.hidden_size))
    one_row = np.asarray(weight.matrix_bytes(np.ones_like(rows), operator.hidden_size))
    cycles = memory_timing(array.pe.memory).read_cycles(read, lambda cycles_of: rows * cycles_of(one_row))
    return cycles, int(read.sum())


def vector_work(node: Work, array: ArrayConfig, layouts: Layouts, support: Mapping[int, Placement]) -> LocalWork:
    """Work of the vector units; `support` says which slice of a Partial value is not zero."""
    unit, activation = array.pe.vector, array.dtypes.activation
    elements, entries = _vector_elements(node, layouts, support), table_entries(node)
    cycles, in_all = _vector_unit_cycles(unit, elements, entries), int(elements.sum())
    return LocalWork(
        Resource.PE_VECTOR,
        cycles > 0,
        cycles,
        operations=in_all * _operations_per_element(unit, entries),
        input_bytes=int(activation.num_bytes(in_all * len(node.inputs))),
        output_bytes=0 if node.function in _ONE_A_ROW else int(activation.num_bytes(in_all)),
    )


def root_work(node: Work, array: ArrayConfig, layouts: Layouts) -> tuple[Resource, IntArray, int, int]:
    """Resource, (jobs,) cycles, bytes read and operations of a node at the root.

    It is a table lookup, or one vector job a group.
    """
    if isinstance(node.operator, Embedding):
        num_rows = int(layouts.group_rows(node.outputs[0].tensor.rows).sum())
        read_bytes = node.operator.read_bytes(array.dtypes, num_rows)
        memory = array.root.memory
        cycles = memory.latency_cycles + ceil_div(read_bytes, memory.bytes_per_cycle)
        return Resource.ROOT_MEMORY, np.array([cycles], dtype=np.int64), read_bytes, 0
    if isinstance(node.operator, Receive):
        return Resource.ROOT_VECTOR, np.zeros(1, dtype=np.int64), 0, 0
    tensor = node.inputs[0].tensor if node.function == "argmax" else node.outputs[0].tensor
    elements = layouts.group_rows(tensor.rows) * tensor.size
    unit, entries = array.root.vector, table_entries(node)
    operations = int(elements.sum()) * _operations_per_element(unit, entries)
    return Resource.ROOT_VECTOR, _vector_unit_cycles(unit, elements, entries), 0, operations


def table_entries(node: Work) -> tuple[str, ...]:
    """The entries of a vector unit's table whose sum is the cost of an element of a node's function."""
    norm = getattr(node.operator, "function", "")
    return _TABLE_ENTRIES.get((node.function, norm), (_SAME_COST.get(node.function, node.function),))


def _attention_distribution(node: Work, layouts: Layouts) -> str:
    return "replicate" if layouts.groups.is_lone else node.distribution


def _vector_unit_cycles(unit: VectorUnit, elements: IntArray, entries: tuple[str, ...]) -> IntArray:
    """Cycles of a vector job: ceil(elements / lanes) * cycles_per_element + latency; 0 for no elements."""
    per_element = _operations_per_element(unit, entries)
    return np.where(elements > 0, ceil_div(elements, unit.lanes) * per_element + unit.latency_cycles, 0)


def _operations_per_element(unit: VectorUnit, entries: tuple[str, ...]) -> int:
    """Cycles that an element takes of a lane."""
    return sum(unit.cycles_per_element[entry] for entry in entries)


def _vector_elements(node: Work, layouts: Layouts, support: Mapping[int, Placement]) -> IntArray:
    special: dict[str, Callable[[], IntArray]] = {
        "softmax": lambda: _score_elements(node, layouts),
        "rope": lambda: total(_held(value, layouts) for value in node.outputs),
        "add": lambda: np.min([_supported(value, layouts, support) for value in node.inputs], axis=0),
        "bias": lambda: _bias_elements(node, layouts),
        "sum_of_squares": lambda: _held(node.inputs[0], layouts),
        "argmax": lambda: _held(node.inputs[0], layouts),
    }
    if node.function in special:
        return special[node.function]()
    return _held(node.outputs[0], layouts)


def _score_elements(node: Work, layouts: Layouts) -> IntArray:
    assert isinstance(node.operator, AttentionOperator)
    split = layouts.attention_split(_attention_distribution(node, layouts))
    return split.q_heads * split.row_sum(1)


def _bias_elements(node: Work, layouts: Layouts) -> IntArray:
    """(PEs,) elements to which each PE adds a bias: its outputs; of partial sums only its own part."""
    value = node.outputs[0]
    own = value.placement.own_part(value.tensor.dim) if isinstance(value.placement, Partial) else None
    return _held(value, layouts, own)


def _held(value: Value, layouts: Layouts, placement: Placement | None = None) -> IntArray:
    """(PEs,) elements of the value that each PE holds."""
    tensor, where = value.tensor, placement or value.placement
    return layouts.pe_rows(tensor.rows, where) * layouts.pe_columns(tensor.dim, tensor.size, where)


def _supported(value: Value, layouts: Layouts, support: Mapping[int, Placement]) -> IntArray:
    """(PEs,) elements of the value that each PE holds and that are not zero by construction."""
    slice_of = support.get(value.key)
    if isinstance(value.placement, Partial) and isinstance(slice_of, Shard):
        return _held(value, layouts, slice_of)
    return _held(value, layouts)
