"""Results of an execution, and the values of its nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pe_sim.config.models.model import ModelConfig
from pe_sim.graph.graph import STREAM
from pe_sim.graph.operators import Rows, Tensor
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import PlacedGraph
from pe_sim.notebook import card, traffic_table
from pe_sim.numeric.arrays import Array
from pe_sim.trace import TagTraffic
from pe_sim.units import IntArray


@dataclass(frozen=True)
class Observation:
    """A value that one node gave, as a whole tensor.

    Args:
        layer: layer of the node; None outside the layers.
        node: name of the operator or the move.
        tensor: the tensor in the graph.
        tensor_layer: layer that made the tensor: a layer also moves the stream of the one before it.
        first_sequence: first sequence of the node's lane.
        layouts: layouts of the node's block.
        whole: (rows of the lane, size) the numbers.
    """

    layer: int | None
    node: str
    tensor: Tensor
    tensor_layer: int | None
    first_sequence: int
    layouts: Layouts
    whole: Array

    @property
    def per_sequence(self) -> list[tuple[int, Array]]:
        """The rows of each sequence: pairs of its number in the batch and its rows."""
        bounds = self.layouts.row_prefix(self.tensor.rows)
        parts = np.split(self.whole, bounds[1:-1])
        return [(self.first_sequence + index, part) for index, part in enumerate(parts)]

    def positions(self, sequence: int, select: str) -> IntArray:
        """(rows,) positions of a sequence's rows in the sequence; `select` as in the operator graph."""
        index = sequence - self.first_sequence
        shape = self.layouts.shape
        first, last = shape.context_lens[index], shape.context_lens[index] + shape.new_lens[index]
        count = self.layouts.selected_per_sequence
        if self.tensor.rows is Rows.ALL or count is None:
            return np.arange(first, last)
        return np.arange(last - count, last) if select == "last" else np.arange(first, first + count)


@dataclass(frozen=True, repr=False)
class Execution:
    """The results of one executed step.

    Args:
        logits: (batch, rows, vocab) of the rows the step computes: the last, all, or in decode the new one; without an
            LM head the (batch, rows, hidden) last hidden state of these rows, for an encoder of all. Where sequences
            have different numbers of rows (`row_counts`), rows past a sequence's own are NaN.
        row_counts: (batch,) rows of each sequence.
        best_tokens: (batch, rows) greedy choices, -1 past a sequence's own rows; None without an LM head.
        pooled: (batch, hidden) pooled output of an encoder.
        traffic: messages and bytes by tag, busy cycles 0; only tags that were used.
        observations: the values of every node, in program order, if they were asked for.
    """

    logits: Array
    row_counts: tuple[int, ...]
    best_tokens: IntArray | None
    pooled: Array | None
    traffic: Mapping[str, TagTraffic]
    observations: tuple[Observation, ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        """One line with the shape of the result and the number of messages."""
        messages = sum(use.messages for use in self.traffic.values())
        return f"<Execution {self.logits.dtype} {self.logits.shape}, {messages:,} messages>"

    def _repr_html_(self) -> str:
        """HTML for notebooks: the shape of the result, the greedy tokens and the traffic."""
        facts = [("rows of each sequence", ", ".join(str(count) for count in self.row_counts))]
        if self.best_tokens is not None:
            last = [int(row[count - 1]) for row, count in zip(self.best_tokens, self.row_counts, strict=True)]
            facts.append(("next tokens", ", ".join(str(token) for token in last)))
        what = "hidden states" if self.best_tokens is None else "logits"
        shape = " x ".join(f"{size:,}" for size in self.logits.shape)
        table = traffic_table(self.traffic, busy=False)
        return card(f"{what}: {shape} of {self.logits.dtype}", facts, [table])

    @property
    def intermediates(self) -> dict[tuple[int | None, str], Array]:
        """(rows, size) whole tensors by (layer, tensor name), the rows of all sequences in order; needs `observe`."""
        parts: dict[tuple[int | None, str], dict[int, Array]] = {}
        for seen in self.observations:
            parts.setdefault((seen.tensor_layer, seen.tensor.name), {})[seen.first_sequence] = seen.whole
        return {key: np.concatenate([lanes[at] for at in sorted(lanes)]) for key, lanes in parts.items()}


def result_of(model: ModelConfig) -> str:
    """Name of a step's result tensor: logits, without an LM head the final norm's output, for an encoder the stream."""
    if not model.has_kv_cache:
        return STREAM
    return "logits" if model.has_lm_head else "final_normed"


def collect_results(
    placed: PlacedGraph,
    model: ModelConfig,
    finals: list[Observation],
    observations: list[Observation],
    traffic: dict[str, TagTraffic],
) -> Execution:
    """The execution, from the last values of the lanes."""
    result = result_of(model)
    rows = {name: _by_sequence(finals, name) for name in (result, "best", "pooled")}
    batch = len(placed.graph.shape.new_lens)
    output = [rows[result][at] for at in range(batch)]
    best = pooled = None
    if rows["best"]:
        best = padded([rows["best"][at]["index"][:, 0].astype(np.int64) for at in range(batch)], -1)
    if rows["pooled"]:
        pooled = np.concatenate([rows["pooled"][at] for at in range(batch)])
    counts = tuple(len(part) for part in output)
    return Execution(padded(output, np.nan), counts, best, pooled, traffic, tuple(observations))


def _by_sequence(finals: list[Observation], name: str) -> dict[int, Array]:
    """For every sequence, its rows of the last value of that name."""
    return {sequence: part for final in finals if final.tensor.name == name for sequence, part in final.per_sequence}


def padded(parts: list[Array], missing: float) -> Array:
    """(parts, most rows, ...) all parts in one array, with `missing` below shorter ones."""
    most = max(len(part) for part in parts)
    padded = np.full((len(parts), most, *parts[0].shape[1:]), missing, dtype=parts[0].dtype)
    for at, part in enumerate(parts):
        padded[at, : len(part)] = part
    return padded
