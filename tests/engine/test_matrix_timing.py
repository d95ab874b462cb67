"""GEMM durations against the formulas of section 4, written again from the text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.engine.event.run import run_event
from pe_sim.schedule.matrix import gemm_schedule, gemm_work, scores_work, values_work
from tests.helpers import attention, ceil, layouts_for, side_by_side, small_array

BITS = {"fp32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "int4": 4}


class Machine:
    """The numbers of section 4: R, C, Lm, Wm, λm, buffer, prefetch and dtypes."""

    def __init__(self, overlap, *, r=16, c=16, lm=8, wm=64, lat=20, buffer=262144, prefetch=65536, **dtypes):
        self.overlap, self.r, self.c, self.lm, self.wm, self.lat = overlap, r, c, lm, wm, lat
        self.buffer, self.prefetch = buffer, prefetch
        self.weight = dtypes.get("weight", "bf16")
        self.group, self.zero = dtypes.get("group"), dtypes.get("zero", False)
        self.activation, self.partial = dtypes.get("activation", "bf16"), dtypes.get("partial", "fp32")

    def array(self, num_pes=1):
        weight = {"dtype": self.weight}
        if self.group:
            weight.update(group_size=self.group, zero_point=self.zero)
        return small_array(
            num_pes,
            {
                "pe.matrix.outputs": self.r,
                "pe.matrix.depth": self.c,
                "pe.matrix.latency_cycles": self.lm,
                "pe.memory.bytes_per_cycle": self.wm,
                "pe.memory.latency_cycles": self.lat,
                "pe.buffer.capacity_bytes": self.buffer,
                "pe.buffer.prefetch_bytes": self.prefetch,
                "dtypes": {
                    "weight": weight,
                    "activation": self.activation,
                    "kv_cache": "bf16",
                    "partial": self.partial,
                },
            },
            overlap=self.overlap,
        )

    def weight_bytes(self, k, n):
        bits = n * k * BITS[self.weight]
        if self.group:
            bits += n * ceil(k, self.group) * (16 + (BITS[self.weight] if self.zero else 0))
        return ceil(bits, 8)

    def passes(self, m, k, n):
        """Rows of each pass."""
        row_bits = k * BITS[self.activation] + n * BITS[self.partial]
        most = max(1, 8 * self.buffer // row_bits)
        return [most] * (m // most) + ([m % most] if m % most else [])

    def run(self, m, k, n, idle=None):
        """(duration, stream end) relative to the start; `idle` is e of overlap 2 (None: no prefetch)."""
        whole = self.weight_bytes(k, n)
        lat, fetched = self.lat, 0
        if self.overlap == 2 and idle is not None:
            lat = max(0, self.lat - idle)
            fetched = min(whole, self.prefetch, self.wm * max(0, idle - self.lat))
        rows = self.passes(m, k, n)
        compute = [part * ceil(n, self.r) * ceil(k, self.c) for part in rows]
        memory = [ceil(whole, self.wm) for _ in rows]
        memory[0] = ceil(whole - fetched, self.wm)
        if self.overlap == 0:
            body = sum(memory) + sum(compute)
            return lat + body + self.lm, lat + sum(memory) + sum(compute[:-1])
        tile_bits = min(self.r, n) * min(self.c, k) * BITS[self.weight]
        if fetched == 0:
            fill = min(ceil(tile_bits, 8 * self.wm), rows[-1])
        elif memory[-1] >= compute[-1]:
            fill = rows[-1]
        else:
            fill = ceil(max(0, ceil(tile_bits, 8) - fetched), self.wm)
        spans = [max(pair) for pair in zip(memory, compute, strict=True)]
        return lat + sum(spans) + fill + self.lm, lat + sum(spans[:-1]) + memory[-1]


def measured(machine, m, k, n):
    return run_event(gemm_schedule(machine.array(), m, k, n)).makespan_cycles


@pytest.mark.parametrize(("overlap", "cycles"), [(0, 2332), (1, 2077), (2, 2077)])
def test_worked_example(overlap, cycles):
    machine = Machine(overlap)
    assert measured(machine, 1, 4096, 16) == machine.run(1, 4096, 16, idle=0)[0] == cycles


SHAPES = [
    (1, 1, 1),
    (1, 4096, 16),
    (1, 17, 33),
    (7, 64, 64),
    (8, 512, 16),
    (64, 128, 100),
    (300, 96, 257),
    (2048, 4096, 43),
]


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "dtypes",
    [
        {},
        {"weight": "fp32"},
        {"weight": "fp8", "activation": "fp32"},
        {"weight": "int8", "group": 32},
        {"weight": "int4"},
        {"weight": "int4", "group": 128, "zero": True},
        {"weight": "int4", "group": 7, "zero": True},
        {"weight": "int8", "group": 1, "zero": True, "activation": "fp8", "partial": "bf16"},
    ],
)
def test_shapes_and_dtypes(overlap, shape, dtypes):
    machine = Machine(overlap, **dtypes)
    assert measured(machine, *shape) == machine.run(*shape)[0]


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize("buffer", [1, 500, 4000, 7999, 8000, 8001, 100_000])
def test_small_buffers_force_several_passes(overlap, buffer):
    for wm in (1, 64, 4096):  # memory-bound and compute-bound passes
        machine = Machine(overlap, buffer=buffer, wm=wm)
        for m, k, n in [(1, 64, 18), (5, 64, 18), (100, 64, 18), (41, 100, 50)]:
            assert measured(machine, m, k, n) == machine.run(m, k, n)[0]


def test_passes_by_hand():
    # a row takes 64·2 + 18·4 = 200 bytes: a buffer of 500 holds 2 rows; 5 rows are passes of 2, 2 and 1
    # B = 2304, 36 cycles a pass; compute 2·2·4 = 16, 16, 8; t = 16·16·2 / 64 = 8, fill = min(8, 1) = 1
    assert measured(Machine(0, buffer=500), 5, 64, 18) == 20 + 3 * 36 + 40 + 8
    assert measured(Machine(1, buffer=500), 5, 64, 18) == 20 + 3 * 36 + 1 + 8
    # at 576 bytes a cycle a pass streams for 4 cycles: compute-bound; t = 1
    assert measured(Machine(1, buffer=500, wm=576), 5, 64, 18) == 20 + 16 + 16 + 8 + 1 + 8


def test_fill_is_the_smaller_of_the_tile_and_the_last_pass():
    assert measured(Machine(1), 3, 16, 16) == 20 + max(8, 3) + 3 + 8
    assert measured(Machine(1), 100, 16, 16) == 20 + max(8, 100) + 8 + 8


def test_int4_rounds_a_tensor_up_once():
    # 3·5 half bytes are 8 bytes; with one group a row of 5: 3·(2 + ½) bytes more, 15.5 rounded up to 16... in one go
    machine = Machine(0, weight="int4", wm=1, lat=0, lm=0)
    assert measured(machine, 1, 5, 3) == 8 + 1
    grouped = Machine(0, weight="int4", group=5, zero=True, wm=1, lat=0, lm=0)
    assert measured(grouped, 1, 5, 3) == 15 + 1  # (60 + 3·20) bits


small = st.integers(1, 70)
machines = st.builds(
    Machine,
    st.integers(0, 2),
    r=st.integers(1, 20),
    c=st.integers(1, 20),
    lm=st.integers(0, 9),
    wm=st.sampled_from([1, 7, 64, 1000]),
    lat=st.sampled_from([0, 1, 20, 300]),
    buffer=st.sampled_from([1, 300, 1000, 10**6]),
    prefetch=st.sampled_from([0, 1, 100, 1000, 10**6]),
    weight=st.sampled_from(["bf16", "int8", "int4"]),
    group=st.none(),
)
shapes = st.tuples(small, small, small)


@given(machines, shapes)
def test_one_gemm(machine, shape):
    assert measured(machine, *shape) == machine.run(*shape, idle=0)[0]


@given(machines, st.lists(shapes, min_size=2, max_size=4))
def test_gemms_in_sequence(machine, sequence):
    """Overlap 2: e = s − f, f the end of the previous stream (its start, if it was there already)."""
    array = machine.array()
    trace = run_event(side_by_side(*(gemm_schedule(array, *shape) for shape in sequence)))
    start, free = 0, 0
    for span, shape in zip(trace.spans, sequence, strict=True):
        duration, stream_end = machine.run(*shape, idle=start - free)
        assert (span.start, span.end) == (start, start + duration)
        free = start + max(0, stream_end)
        start += duration
    assert trace.makespan_cycles == start


@pytest.mark.parametrize(("r", "c"), [(1, 16), (16, 1), (3, 5), (5, 3), (8, 2)])
@pytest.mark.parametrize("num_pes", [1, 2, 4, 8])
@pytest.mark.parametrize("distribution", ["head", "token"])
def test_attention_on_units_that_are_not_square(distribution, num_pes, r, c):
    """Scores: outputs are tokens, the inner dim the PE's part of head_dim; values: the other way round."""
    heads, dim, new, context = 4, 12, (1, 3, 5), (40, 0, 7)
    array = small_array(num_pes, {"pe.matrix.outputs": r, "pe.matrix.depth": c})
    split = layouts_for(array, attention(heads, 2, dim, new, context)).attention_split(distribution)
    scores, values = scores_work(array, split), values_work(array, split)
    by_head = distribution == "head"
    own_heads, dims = (max(1, heads // num_pes), dim // max(1, num_pes // heads)) if by_head else (heads, dim)
    for pe in range(num_pes):
        lengths = [past + row + 1 for past, rows in zip(context, new, strict=True) for row in range(rows)]
        seen = lengths if by_head else [len(range(pe, length, num_pes)) for length in lengths]
        blocks = sum(ceil(tokens, r) for tokens in seen)
        assert scores.compute_cycles[pe] == own_heads * ceil(dims, c) * blocks
        assert scores.input_bytes[pe] == own_heads * dims * blocks * 2
        assert values.compute_cycles[pe] == own_heads * ceil(dims, r) * sum(ceil(tokens, c) for tokens in seen)
        assert values.input_bytes[pe] == own_heads * ceil(dims, r) * sum(seen) * 2


@pytest.mark.parametrize(("r", "c"), [(1, 16), (16, 1), (3, 5), (5, 3)])
def test_a_gemm_on_units_that_are_not_square(r, c):
    array = small_array(1, {"pe.matrix.outputs": r, "pe.matrix.depth": c})
    rows, inner, outer = (np.array([size]) for size in (7, 44, 30))
    work = gemm_work(array, rows, inner, outer)
    assert work.compute_cycles == 7 * ceil(30, r) * ceil(44, c)
    assert work.tile_bytes == r * c * 2
    assert work.input_bytes == 7 * ceil(30, r) * 44 * 2  # every block of outputs takes all inputs
    assert gemm_work(array, rows, np.array([2]), outer).tile_bytes == r * min(c, 2) * 2


class TestPrefetchByHand:
    """Two GEMMs, R = C = 16, λm 20, Lm 8, 64 B/cycle."""

    def second(self, first, second, **knobs):
        array = Machine(2, **knobs).array()
        trace = run_event(side_by_side(gemm_schedule(array, *first), gemm_schedule(array, *second)))
        return trace.spans[1].end - trace.spans[1].start

    def test_a_short_pause_hides_part_of_the_latency(self):
        # the first streams until 20 + 2048, ends at 2077: e = 9, so λm is 11 and nothing is there yet
        assert self.second((1, 4096, 16), (1, 4096, 16)) == 11 + 2048 + 1 + 8

    def test_a_compute_bound_operator_leaves_time_to_prefetch(self):
        # first: memory 8, compute 300, fill min(8, 300): ends at 20 + 300 + 8 + 8 = 336, stream over at 28, e = 308
        # p = min(131072, 65536, 64·288 = 18432): the first pass streams (131072 − 18432) / 64 = 1760; fill = m = 1
        assert self.second((300, 16, 16), (1, 4096, 16)) == 0 + 1760 + 1 + 8

    def test_the_prefetch_buffer_is_a_bound(self):
        assert self.second((300, 16, 16), (1, 4096, 16), prefetch=640) == 0 + (131072 - 640) // 64 + 1 + 8

    def test_everything_is_there(self):
        # B = 512 bytes, prefetched whole: memory 0, compute-bound, tile there: no fill
        assert self.second((300, 16, 16), (4, 16, 16)) == 4 + 0 + 8

    def test_part_of_the_first_tile_is_missing(self):
        # λm 20, e as above; 100 bytes of the 512 of tile and operator are there: ceil(412 / 64) = 7 = memory,
        # compute 50: compute-bound, fill = 7
        assert self.second((300, 16, 16), (50, 16, 16), prefetch=100) == 50 + 7 + 8

    def test_no_prefetch_buffer_still_hides_the_latency(self):
        assert self.second((300, 16, 16), (1, 4096, 16), prefetch=0) == 0 + 2048 + 1 + 8


def test_only_pe_0_works():
    trace = run_event(gemm_schedule(Machine(1).array(4), 3, 64, 64))
    assert [int(busy) > 0 for busy in trace.pe_busy["pe_matrix"]] == [True, False, False, False]
    assert int(trace.pe_busy["pe_matrix"][0]) == 3 * 4 * 4
    assert int(trace.pe_busy["pe_memory"][0]) == 64 * 64 * 2 // 64
    assert trace.read_bytes == 64 * 64 * 2
