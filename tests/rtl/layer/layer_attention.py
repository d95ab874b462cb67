"""Attention of a placed step: scores, softmax and values, over the cache in the PEs' memories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pe_sim.mapping.placement import Partial
from tests.rtl.commands import Function
from tests.rtl.layer.integer_model import SOFTMAX_SHIFT, VALUES_SHIFT, Ints
from tests.rtl.layer.layer_cache import Cache, PeHeads, head_pitch, key_tiles, value_tiles
from tests.rtl.layer.layer_matrices import add_matrix
from tests.rtl.layer.layer_values import ACTIVATION, SUM, Held, Job, StepLowering
from tests.rtl.layer.layer_vectors import fixed_wait, units_of, vector, work_of
from tests.rtl.programs.tiles import Tiles


@dataclass(frozen=True)
class Scores:
    """Where each PE's scores (int32) or probabilities (int16) are: by kv head, token and row."""

    address: int
    width: int
    cache: Cache

    def read(self, step: StepLowering, name: str, heads: Ints) -> None:
        """Asks for all of them; `heads` are (heads, rows, tokens)."""
        for pe, part in self.cache.parts.items():
            count = part.query_heads(heads.shape[1])
            mine = heads[part.q_first : part.q_first + count][:, :, part.positions]
            if mine.size:
                by_row = mine.reshape(part.batch, part.rows, part.tokens).transpose(0, 2, 1)
                data = np.ascontiguousarray(by_row).astype(f"<i{self.width}").tobytes()
                step.case.read(f"layers.{step.layer}.{name}", pe, self.address, data)

    def fields(self, name: str, part: PeHeads, tokens: str, rows: str) -> dict[str, int]:
        """Fields of a MATRIX command for which they are operand `name`."""
        return {
            f"{name}_addr": self.address,
            f"{name}_{rows}_pitch": self.width,
            f"{name}_{tokens}_pitch": self.width * part.rows,
            f"{name}_batch_pitch": self.width * part.rows * part.tokens,
        }


def new_scores(step: StepLowering, cache: Cache, width: int) -> Scores:
    """A place for them."""
    most = max(part.batch * part.rows * part.tokens for part in cache.parts.values())
    return Scores(step.spaces[False].take(most * width), width, cache)


def row_fields(name: str, held: Held, part: PeHeads, head_dim: int, pe: int) -> dict[str, int]:
    """Fields of a MATRIX command for queries or attended values: rows are heads, or rows of a head."""
    of_head = head_dim * held.pitch
    return {
        f"{name}_addr": held.addresses[pe],
        f"{name}_row_pitch": of_head if part.by_head else held.width,
        f"{name}_column_pitch": held.pitch,
        f"{name}_batch_pitch": of_head * (part.rows if part.by_head else 1),
    }


def lower_scores(step: StepLowering, job: Job, cache: Cache) -> Scores:
    """Queries times K."""
    queries, scores = step.values[work_of(job).inputs[0].key], new_scores(step, cache, SUM)
    for pe in units_of(step, job):
        part = cache.parts[pe]
        tiles = key_tiles(step, part)
        fields = {
            **_matrix_fields(tiles, part, cache.key_addr),
            **row_fields("in", queries, part, step.model.head_dim, pe),
            **scores.fields("out", part, tokens="column", rows="row"),
        }
        add_matrix(step, job, pe, fields, attention=True)
    scores.read(step, "scores", step.reference.tensors[step.layer, "scores"])
    return scores


def lower_softmax(step: StepLowering, job: Job, scores: Scores) -> Scores:
    """The scores, shifted right."""
    probabilities = new_scores(step, scores.cache, ACTIVATION)
    parts = {pe: scores.cache.parts[pe] for pe in units_of(step, job)}
    elements = {pe: part.batch * part.rows * part.tokens for pe, part in parts.items()}
    fixed_wait(step, job, "a shift")
    fields = {
        pe: {
            "operation": Function.COPY,
            "elements": elements[pe],
            "a_addr": scores.address,
            "a_shift": SOFTMAX_SHIFT,
            "out_addr": probabilities.address,
            "out_narrow": 1,
        }
        for pe in parts
    }
    vector(step, job, elements, fields)
    probabilities.read(step, "probabilities", step.reference.tensors[step.layer, "probabilities"])
    return probabilities


def lower_values(step: StepLowering, job: Job, probabilities: Scores) -> None:
    """Probabilities times V: activations, or terms of a sum with zeros for the statistics behind them."""
    node, cache = work_of(job), probabilities.cache
    is_sum = isinstance(node.outputs[0].placement, Partial)
    width, shift = (SUM, VALUES_SHIFT) if is_sum else (ACTIVATION, 0)
    held = step.new(node.outputs[0], job.layouts, width, shift=shift, terms=is_sum)
    for pe in units_of(step, job):
        part = cache.parts[pe]
        fields = {
            **_matrix_fields(value_tiles(step, part), part, cache.value_addr),
            **probabilities.fields("in", part, tokens="column", rows="row"),
            **row_fields("out", held, part, step.model.head_dim, pe),
            "out_narrow": int(not is_sum),
            "shift": 0 if is_sum else VALUES_SHIFT,
            "inner_major": 1,
        }
        add_matrix(step, job, pe, fields, attention=True)
        if is_sum:
            zeros = bytes(held.num_bytes(pe))
            step.case.program.units[pe].buffer.append((held.addresses[pe], zeros))


def _matrix_fields(tiles: Tiles, part: PeHeads, address: int) -> dict[str, int]:
    return {
        **tiles.fields(),
        "rows": part.rows,
        "pass_rows": part.rows,
        "batch": part.batch,
        "weight_addr": address,
        "batch_pitch": head_pitch(tiles),
    }
