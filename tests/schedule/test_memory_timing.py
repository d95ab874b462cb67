"""A DRAM bank, column by column with a small controller, against the closed forms of both engines."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import pe_sim as ps
from pe_sim.config.arrays.array import DramBank, Memory
from pe_sim.engine.event.run import run_event
from pe_sim.engine.fast.run import run_fast
from pe_sim.schedule.matrix import gemm_schedule
from pe_sim.schedule.memory_timing import memory_timing
from tests.helpers import ceil, side_by_side, small_array, tiny_llama

AIM = "aim-gddr6-16"


def bank(row=2048, column=32, ccd=2, rcd=56, rp=32, rtp=12):
    return DramBank("bank", 2**27, row, column, ccd, rcd, rp, rtp)


def as_overrides(memory):
    names = DramBank.__slots__
    return {"pe.memory": {"kind": "dram_bank", **{name: getattr(memory, name) for name in names}}}


class Controller:
    """Issues one command after the other as early as the constraints allow; closes a row when it is done with it."""

    def __init__(self, memory):
        self.memory, self.closed_at = memory, 0

    def read(self, start, num_bytes, pause_after=None, resume=0):
        """Cycle at which each column of an access is out; it goes on no sooner than `resume` behind `pause_after`."""
        memory, out, row_ready = self.memory, [], 0
        columns_of_row = memory.row_bytes // memory.column_bytes
        for column in range(ceil(num_bytes, memory.column_bytes)):
            gate = resume if pause_after is not None and column >= pause_after else 0
            if column % columns_of_row == 0:
                activate = max(start, self.closed_at, gate)
                issue = activate + memory.activate_cycles
            else:
                issue = max(row_ready, gate)
            row_ready = issue + memory.column_cycles
            self.closed_at = issue + memory.read_to_precharge_cycles + memory.precharge_cycles
            out.append(row_ready)
        return out


banks = st.builds(
    lambda columns, column, ccd, rcd, rp, rtp: bank(columns * column, column, ccd, rcd, max(rp, ccd), rtp),
    st.integers(1, 9),
    st.sampled_from([4, 8, 32]),
    st.integers(1, 4),
    st.integers(1, 60),
    st.integers(0, 40),
    st.integers(0, 12),
)


class TestPublishedFigures:
    """SK hynix AiM, as measured with its public simulator: cycles of the 2 GHz command clock."""

    @pytest.mark.parametrize(("columns", "cycles"), [(1, 59), (2, 61), (64, 185)])
    def test_one_row(self, columns, cycles):
        assert ps.gemm(AIM, 1, 16 * columns, 1).cycles == cycles

    @pytest.mark.parametrize("columns", range(1, 65))
    def test_every_number_of_columns(self, columns):
        assert ps.gemm(AIM, 1, 16 * columns, 1).cycles == 56 + 2 * columns + 1

    def test_two_rows(self):
        assert ps.gemm(AIM, 1, 1024, 2).cycles == ps.gemm(AIM, 1, 2048, 1).cycles == 411

    @pytest.mark.parametrize("engine", ["fast", "event"])
    @pytest.mark.parametrize("rows", [1, 2, 3, 64, 1000])
    def test_whole_rows_back_to_back(self, rows, engine):
        one_row = 56 + 63 * 2 + 12 + 32
        assert one_row == 226
        assert ps.gemm(AIM, 1, 1024, rows, engine=engine).cycles == (rows - 1) * one_row + 185

    @pytest.mark.parametrize("columns", [65, 100, 127, 129, 1000])
    def test_a_row_in_part(self, columns):
        rows, rest = divmod(columns - 1, 64)
        assert ps.gemm(AIM, 1, 16 * columns, 1).cycles == rows * 226 + 56 + 2 * (rest + 1) + 1

    def test_the_buffer_holds_one_input_vector_so_every_row_of_inputs_reads_the_bank_again(self):
        assert [ps.gemm(AIM, rows, 1024, 1).cycles for rows in (1, 2, 5)] == [185, 411, 4 * 226 + 185]


@given(banks, st.integers(1, 300), st.integers(0, 3))
def test_one_read(memory, num_bytes, overlap):
    """A GEMM of one output over bytes: at overlap 0 one column after the other, then the multiplications."""
    out = Controller(memory).read(0, num_bytes)[-1]
    array = small_array(2, {**as_overrides(memory), "dtypes.weight": "int8", "overlap": overlap})
    fill = min(memory_timing(memory).stream_cycles(min(16, num_bytes)), 1)
    compute = ceil(num_bytes, 16)
    expected = out + 8 + (compute if overlap == 0 else max(0, compute - (out - memory.activate_cycles)) + fill)
    assert ps.gemm(array, 1, num_bytes, 1).cycles == ps.gemm(array, 1, num_bytes, 1, engine="event").cycles == expected


@given(banks, st.lists(st.integers(1, 300), min_size=2, max_size=5), st.integers(0, 1))
def test_reads_in_sequence(memory, sizes, overlap):
    """Without prefetching: each begins where the one before ended, or when its last row is closed."""
    array = small_array(1, {**as_overrides(memory), "dtypes.weight": "int8", "overlap": overlap})
    schedule = side_by_side(*(gemm_schedule(array, 1, size, 1) for size in sizes))
    controller, start = Controller(memory), 0
    for span, size in zip(run_fast(schedule).spans, sizes, strict=True):
        out = controller.read(start, size)
        wait = out[0] - memory.column_cycles - memory.activate_cycles - start
        alone = ps.gemm(array, 1, size, 1).cycles
        assert (span.start, span.end) == (start, start + wait + alone)
        start = span.end
    assert run_event(schedule).makespan_cycles == start


@given(banks, st.integers(1, 400), st.integers(1, 300), st.sampled_from([0, 5, 64, 10**6]))
def test_prefetching(memory, rows, size, limit):
    """At overlap 2 the next matrix is read while the first one computes, as far as the prefetch buffer holds it."""
    kept, columns = limit // memory.column_bytes, ceil(size, memory.column_bytes)
    assume(kept >= columns or kept % (memory.row_bytes // memory.column_bytes))  # it does not pause at a row's end
    overrides = {"dtypes.weight": "int8", "overlap": 2, "pe.buffer.prefetch_bytes": limit, "pe.matrix.depth": 4096}
    array = small_array(1, {**as_overrides(memory), **overrides})
    schedule = side_by_side(gemm_schedule(array, rows, 16, 1), gemm_schedule(array, 1, size, 1))
    second = run_fast(schedule).spans[1]
    controller = Controller(memory)
    controller.read(0, 16)
    out = controller.read(controller.closed_at, size, pause_after=kept, resume=second.start)
    assert second.end == max(out[-1], second.start) + 1 + 8  # one MAC, and the unit's latency
    assert run_event(schedule).makespan_cycles == second.end


@given(banks, st.integers(1, 400), st.integers(0, 500), st.integers(0, 4000))
def test_what_is_fetched_ahead(memory, num_bytes, limit, ahead):
    timing, out = memory_timing(memory), [t - memory.activate_cycles for t in Controller(memory).read(0, num_bytes)]
    kept = min(num_bytes, limit // memory.column_bytes * memory.column_bytes)
    fetched, spent = timing.fetched_ahead(num_bytes, limit, ahead)
    assert fetched == min(kept, memory.column_bytes * sum(cycle <= ahead for cycle in out))
    assert spent == min(ahead, timing.stream_cycles(kept))
    assert spent + timing.rest_cycles(num_bytes, fetched, spent) == timing.stream_cycles(num_bytes) == out[-1]


@given(banks, st.lists(st.integers(0, 400), min_size=1, max_size=5))
def test_arrays_are_numbers_side_by_side(memory, sizes):
    timing, many = memory_timing(memory), np.array(sizes)
    for function in (timing.stream_cycles, timing.next_stream_cycles, lambda n: timing.fetched_ahead(n, 100, n)[0]):
        assert function(many).tolist() == [function(size) for size in sizes]


@given(banks, st.integers(1, 2), st.lists(st.integers(1, 400), min_size=1, max_size=5))
def test_pieces_of_an_access_begin_with_rows_of_their_own(memory, copies, sizes):
    """Heads and sequences of a cache, rows of a table: a row is opened for each."""
    timing, controller = memory_timing(memory), Controller(memory)

    def pieces(cycles_of):
        return copies * sum(cycles_of(np.array([size])) for size in sizes)

    end = 0
    for size in copies * sizes:
        end = controller.read(0, size)[-1]
    whole = np.array([copies * sum(sizes)])
    assert timing.read_cycles(whole, pieces).tolist() == timing.write_cycles(whole, pieces).tolist() == [end]
    assert timing.read_cycles(0 * whole, lambda _: 0 * whole).tolist() == [0]


def test_a_flat_memory_does_not_care_where_things_lie():
    timing = memory_timing(Memory("flat", 2**27, 64, 20))
    assert timing.read_cycles(np.array([0, 1, 65]), lambda _: np.zeros(3)).tolist() == [0, 21, 22]
    assert timing.write_cycles(np.array([0, 1, 65]), lambda _: np.zeros(3)).tolist() == [0, 1, 2]


def test_a_new_token_opens_a_row_for_k_and_v_of_every_head():
    array = small_array(1, as_overrides(bank()))
    report = ps.simulate(tiny_llama(num_hidden_layers=1), array, ps.Decode(context_len=9), workflow="all-row")
    (append,) = (span for span in report.trace.spans if span.name == "kv_append")
    assert append.end - append.start >= 8 * (56 + 12 + 32) - 42  # 4 heads of one column each, K and V


@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
def test_busy_cycles_are_a_bound(overlap):
    array = small_array(4, {**as_overrides(bank()), "overlap": overlap})
    for engine in ("fast", "event"):
        report = ps.simulate(tiny_llama(), array, ps.Decode(context_len=100), workflow="workflow-1", engine=engine)
        assert 0 < report.bounds["memory_cycles"] <= report.latency_cycles
        assert 0 < report.utilization["pe_memory"] <= 1
