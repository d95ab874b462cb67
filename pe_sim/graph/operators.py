"""Operators and their tensors: what a step computes, with the flops and bytes of each. A MAC is 2 flops.

Flops of element-wise functions follow the conventions of LLM-Viewer (arXiv 2402.16363): softmax 5 an element,
norm 7, add 1; RoPE is 3 (two multiplies, one add), SiLU times gate 5, GELU 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from pe_sim.config.dtypes import Dtypes

# ---- Tensors with named dims: every tensor of a step is a set of rows times one feature dim.


class Rows(StrEnum):
    """Which rows of the step a tensor has."""

    ALL = "all"  # every new row of every sequence
    SELECTED = "selected"  # the rows the epilogue works on: those that logits are computed for


class Element(StrEnum):
    """What one element is, which decides its bytes on the wire."""

    ACTIVATION = "activation"
    STATISTIC = "statistic"  # fp32 scalar of a norm
    CANDIDATE = "candidate"  # (fp32 value, int32 index) of an argmax
    TERM = "term"  # a term of a sum over several arrays: in the partial dtype wherever it goes


@dataclass(frozen=True, slots=True)
class Tensor:
    """A (rows, size) tensor.

    Args:
        name: unique inside a block of operators.
        dim: name of the feature dim: hidden, query, kv, ffn, vocab, score, softmax_partial or scalar.
        size: elements of one row along `dim`; 0 for score, whose length depends on the row.
        rows: which rows of the step it has.
        element: what one element is.
    """

    name: str
    dim: str
    size: int
    rows: Rows = Rows.ALL
    element: Element = Element.ACTIVATION


FLOPS_PER_ELEMENT: dict[str, int] = {
    "add": 1,
    "argmax": 1,
    "gelu": 8,
    "gelu_tanh": 8,
    "layernorm": 7,
    "rmsnorm": 7,
    "rope": 3,
    "silu_mul": 5,
    "softmax": 5,
    "tanh": 4,
}


@dataclass(frozen=True)
class AttentionShape:
    """The geometry every attention operator of a layer shares; lengths are tokens.

    Args:
        num_heads, num_kv_heads, head_dim: as in the model.
        new_lens, context_lens: new rows and cached tokens of each sequence.
        causal_skip: row i sees context + i + 1 tokens; otherwise every row sees context + new tokens.
        token_stride, token_offsets: of each sequence only positions offset, offset + stride, ... are here, the others
            on other arrays; no offsets: all positions are.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    new_lens: tuple[int, ...]
    context_lens: tuple[int, ...]
    causal_skip: bool
    token_stride: int = 1
    token_offsets: tuple[int, ...] = ()

    @property
    def offsets(self) -> tuple[int, ...]:
        """(sequences,) the first position of each sequence that is here."""
        return self.token_offsets or (0,) * len(self.new_lens)

    @cached_property
    def visible_pairs(self) -> int:
        """(row, token) pairs of one head, summed over the sequences; of all arrays together."""
        return sum(
            visible_pairs(new, context, self.causal_skip)
            for new, context in zip(self.new_lens, self.context_lens, strict=True)
        )

    @cached_property
    def total_tokens(self) -> int:
        """Tokens in the cache after this step, summed over the sequences."""
        return sum(self.new_lens) + sum(self.context_lens)


def visible_pairs(new_len: int, context_len: int, causal_skip: bool) -> int:
    """(row, token) pairs that one head of one sequence computes."""
    if causal_skip:
        return new_len * context_len + new_len * (new_len + 1) // 2
    return new_len * (context_len + new_len)


@dataclass(frozen=True, slots=True)
class Operator:
    """One node of the graph; `inputs` are tensor names, `num_rows` counts the rows it works on."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[Tensor, ...]
    num_rows: int

    @property
    def flops(self) -> int:
        """Floating point operations of the whole operator, undistributed."""
        return 0

    def num_bytes(self, dtypes: Dtypes) -> int:
        """Bytes read and written if every operand is touched exactly once."""
        return sum(_activation_bytes(self.num_rows * tensor.size, dtypes) for tensor in self.outputs)

    def weight_bytes(self, dtypes: Dtypes) -> int:
        """Bytes of the operator's own parameters."""
        return 0


@dataclass(frozen=True, slots=True)
class Embedding(Operator):
    """Reads one table row per input row (token, and where the family has them position and type)."""

    hidden_size: int
    table_rows: tuple[int, ...]

    def num_bytes(self, dtypes: Dtypes) -> int:
        """Bytes of the table rows read, and of the rows written."""
        return self.read_bytes(dtypes, self.num_rows) + _activation_bytes(self.num_rows * self.hidden_size, dtypes)

    def read_bytes(self, dtypes: Dtypes, num_rows: int) -> int:
        """Bytes read from the tables for `num_rows` rows."""
        return int(dtypes.weight.matrix_bytes(num_rows * len(self.table_rows), self.hidden_size))

    def table_bytes(self, dtypes: Dtypes) -> int:
        """Bytes of the tables themselves."""
        return sum(int(dtypes.weight.matrix_bytes(rows, self.hidden_size)) for rows in self.table_rows)


@dataclass(frozen=True, slots=True)
class Linear(Operator):
    """y = W x (+ b) with W of shape (out_size, in_size). Tensors of one `bundle` travel together."""

    in_size: int
    out_size: int
    in_dim: str
    out_dim: str
    bias: bool
    bundle: str

    @property
    def flops(self) -> int:
        """Flops: 2 m k n, plus m n for a bias."""
        return 2 * self.num_rows * self.in_size * self.out_size + self.bias * self.num_rows * self.out_size

    def num_bytes(self, dtypes: Dtypes) -> int:
        """Bytes of weights, inputs and outputs, once each."""
        return self.weight_bytes(dtypes) + _activation_bytes(self.num_rows * (self.in_size + self.out_size), dtypes)

    def weight_bytes(self, dtypes: Dtypes) -> int:
        """Bytes of the matrix with its scales, and of the bias in the weights' dtype."""
        matrix = int(dtypes.weight.matrix_bytes(self.out_size, self.in_size))
        return matrix + (int(dtypes.weight.num_bytes(self.out_size)) if self.bias else 0)


@dataclass(frozen=True, slots=True)
class Norm(Operator):
    """RMSNorm or LayerNorm over the hidden dim."""

    function: str
    size: int

    @property
    def flops(self) -> int:
        """Flops: 7 an element."""
        return FLOPS_PER_ELEMENT[self.function] * self.num_rows * self.size

    def num_bytes(self, dtypes: Dtypes) -> int:
        """Bytes of input, output and weights, once each."""
        return 2 * _activation_bytes(self.num_rows * self.size, dtypes) + self.weight_bytes(dtypes)

    def weight_bytes(self, dtypes: Dtypes) -> int:
        """Bytes of the gain, and of LayerNorm's bias."""
        return int(dtypes.weight.num_bytes(self.size * (2 if self.function == "layernorm" else 1)))


@dataclass(frozen=True, slots=True)
class Elementwise(Operator):
    """A vector function over `size` elements a row: residual add or activation."""

    function: str
    size: int

    @property
    def flops(self) -> int:
        """Flops per element of the function times the elements."""
        return FLOPS_PER_ELEMENT[self.function] * self.num_rows * self.size

    def num_bytes(self, dtypes: Dtypes) -> int:
        """Bytes of every input and the output, once each."""
        return (len(self.inputs) + 1) * _activation_bytes(self.num_rows * self.size, dtypes)


@dataclass(frozen=True, slots=True)
class Select(Operator):
    """Keeps the rows that logits are computed for; moves and costs nothing."""

    def num_bytes(self, dtypes: Dtypes) -> int:
        """0 bytes: nothing is read or written."""
        return 0


@dataclass(frozen=True, slots=True)
class Receive(Operator):
    """A tensor that is there when a part of a step begins: from another array, or left by the part before it.

    `to_all`: it comes to the root, and every PE needs it whole.
    """

    to_all: bool = False

    def num_bytes(self, dtypes: Dtypes) -> int:
        """0 bytes: what brought the tensor is counted elsewhere."""
        return 0


@dataclass(frozen=True, slots=True)
class Send(Operator):
    """A tensor that leaves for other arrays: the root has it in the end."""


@dataclass(frozen=True, slots=True)
class MergedSoftmax(Operator):
    """Divides weighted values by their sums, once the softmax partials of all arrays are merged."""


@dataclass(frozen=True, slots=True)
class Argmax(Operator):
    """The greedy choice: one (value, index) pair a row."""

    size: int

    @property
    def flops(self) -> int:
        """Flops: one comparison an element."""
        return self.num_rows * self.size

    def num_bytes(self, dtypes: Dtypes) -> int:
        """Bytes of the logits read."""
        return _activation_bytes(self.num_rows * self.size, dtypes)


@dataclass(frozen=True, slots=True)
class AttentionOperator(Operator):
    """Base of the operators that share one layer's attention geometry."""

    shape: AttentionShape


@dataclass(frozen=True, slots=True)
class Rope(AttentionOperator):
    """Rotary position embedding of queries and keys."""

    @property
    def flops(self) -> int:
        """Flops: 3 an element of q and k."""
        return FLOPS_PER_ELEMENT["rope"] * self.num_rows * sum(tensor.size for tensor in self.outputs)

    def num_bytes(self, dtypes: Dtypes) -> int:
        """Bytes of q and k, read and written."""
        return 2 * _activation_bytes(self.num_rows * sum(tensor.size for tensor in self.outputs), dtypes)


@dataclass(frozen=True, slots=True)
class KvAppend(AttentionOperator):
    """Writes the new rows' keys and values into the cache."""

    def num_bytes(self, dtypes: Dtypes) -> int:
        """Bytes of K and V rows written in the cache's dtype."""
        return 2 * kv_bytes(self.shape, dtypes, self.num_rows)


@dataclass(frozen=True, slots=True)
class Scores(AttentionOperator):
    """Queries times keys."""

    @property
    def flops(self) -> int:
        """Flops: 2 head_dim a visible pair and head."""
        return 2 * self.shape.num_heads * self.shape.head_dim * self.shape.visible_pairs

    def num_bytes(self, dtypes: Dtypes) -> int:
        """Bytes of cached keys, queries and the scores."""
        queries = self.num_rows * self.shape.num_heads * self.shape.head_dim
        pairs = self.shape.num_heads * self.shape.visible_pairs
        return kv_bytes(self.shape, dtypes, self.shape.total_tokens) + _activation_bytes(queries + pairs, dtypes)


@dataclass(frozen=True, slots=True)
class Softmax(AttentionOperator):
    """Softmax over the visible tokens of every row and head."""

    @property
    def flops(self) -> int:
        """Flops: 5 a score."""
        return FLOPS_PER_ELEMENT["softmax"] * self.shape.num_heads * self.shape.visible_pairs

    def num_bytes(self, dtypes: Dtypes) -> int:
        """Bytes of the scores, read and written."""
        return 2 * _activation_bytes(self.shape.num_heads * self.shape.visible_pairs, dtypes)


@dataclass(frozen=True, slots=True)
class Values(AttentionOperator):
    """Probabilities times values."""

    @property
    def flops(self) -> int:
        """Flops: 2 head_dim a visible pair and head."""
        return 2 * self.shape.num_heads * self.shape.head_dim * self.shape.visible_pairs

    def num_bytes(self, dtypes: Dtypes) -> int:
        """Bytes of cached values, the probabilities and the output."""
        pairs = self.shape.num_heads * self.shape.visible_pairs
        outputs = self.num_rows * self.shape.num_heads * self.shape.head_dim
        return kv_bytes(self.shape, dtypes, self.shape.total_tokens) + _activation_bytes(pairs + outputs, dtypes)


def kv_bytes(shape: AttentionShape, dtypes: Dtypes, num_tokens: int) -> int:
    """Bytes of the keys (or the values) of `num_tokens` tokens of one layer."""
    return int(dtypes.kv_cache.matrix_bytes(num_tokens * shape.num_kv_heads, shape.head_dim))


def _activation_bytes(elements: int, dtypes: Dtypes) -> int:
    return int(dtypes.activation.num_bytes(elements))
