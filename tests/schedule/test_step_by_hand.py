"""Durations and whole steps worked by hand from sections 3, 4 and 6.

The machine: R = C = 16, Lm 8, 64 B/cycle behind λm 20, 32 lanes + 4 cycles, root 256 lanes + 4 and 512 B/cycle
behind 100; bus 64 B/cycle, ω 2, λ 4; binary tree 64 B/cycle, 1 + 2 a level (12 for a softmax merge); overlap 1.
The model: hidden 64, 4 heads of 16, ffn 96, vocabulary 50, bf16. The step: one new token after 20.
"""

import pytest

from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.event.run import run_event
from tests.helpers import schedule_of, small_array, tiny_llama


def simulate(workflow, num_pes, layers=1, step=None, **knobs):
    model = tiny_llama(num_hidden_layers=layers)
    return run_event(schedule_of(model, small_array(num_pes, **knobs), step or Decode(1, 20), workflow))


def durations(trace):
    """(name, cycles) of each stage; a tuple where the PEs differ, PEs without work left out."""
    found = []
    for span in trace.spans:
        if span.pe_start is None:
            found.append((span.name, span.end - span.start))
            continue
        each = [int(end - start) for start, end in zip(span.pe_start, span.pe_end, strict=True) if start >= 0]
        found.append((span.name, each[0] if len(set(each)) == 1 else tuple(each)))
    return found


START = [("embedding", 100 + 1), ("broadcast stream", 2 + 4 + 2)]  # 128 bytes
END_4 = [
    ("rmsnorm", 2 * 4 + 4),
    # 13 or 12 rows of 64: 1664 or 1536 bytes
    ("lm_head", (20 + 26 + 1 + 8, 20 + 26 + 1 + 8, 20 + 24 + 1 + 8, 20 + 24 + 1 + 8)),
    ("argmax", 1 + 4),
    ("reduce best", 2 * 3 + 1),
    ("argmax", 1 + 4),
]
PROJECTION_4 = 20 + 32 + 1 + 8  # 2048 bytes; compute 4, fill min(8, 1)
FFN_4 = 20 + 48 + 1 + 8  # 3072 bytes; compute 8 or 6
ALL_REDUCE_4 = [2 * 3 + 4, 2 + 4 + 2]  # 64 fp32 up, 64 bf16 down
BY_HEAD_4 = [
    ("rope", 2 + 4),  # 16 of q, 16 of k
    ("kv_append", 1),  # 64 bytes
    ("scores", 20 + 11 + 8),  # 21 tokens · 32 bytes = 672
    ("softmax", 6 + 4),
    ("values", 20 + 11 + 8),
    ("o", PROJECTION_4),
    ("add", 1 + 4),  # the slice of 16
]

MEGATRON_4 = [
    ("rmsnorm", 12),
    *((name, PROJECTION_4) for name in "qkv"),
    *BY_HEAD_4,
    ("reduce middle", ALL_REDUCE_4[0]),
    ("broadcast middle", ALL_REDUCE_4[1]),
    ("rmsnorm", 12),
    ("gate", FFN_4),
    ("up", FFN_4),
    ("silu_mul", 6 + 4),
    ("down", FFN_4),
    ("add", 1 + 4),
    ("reduce stream", ALL_REDUCE_4[0]),
    ("broadcast stream", ALL_REDUCE_4[1]),
]

WORKFLOW_2_4 = [
    ("rmsnorm", 12),
    *((name, PROJECTION_4) for name in "qkv"),
    ("reduce q+k+v", 2 * 3 + 12),  # 768 bytes
    ("broadcast q+k+v", 2 + 4 + 6),
    ("rope", 4 * 2 + 4),  # 128 elements on every PE
    ("kv_append", 4),  # 256 bytes on PE 0, which owns position 20
    ("scores", 20 + 4 * 3 + 8),  # 6 or 5 tokens a head: 192 or 160 bytes, 3 cycles for each of 4 heads
    ("softmax", 6 + 4),  # 24 or 20 scores
    ("values", 20 + 4 * 3 + 8),
    ("reduce attended_partial", 2 * 13 + 5),  # 4·18 fp32 = 288 bytes
    ("softmax_merge", 4 + 4),
    ("broadcast attended", 2 + 4 + 2),  # a scatter would take 4·3 + 4
    ("o", PROJECTION_4),
    ("add", 1 + 4),
    ("reduce middle", ALL_REDUCE_4[0]),
    ("broadcast middle", ALL_REDUCE_4[1]),
    ("rmsnorm", 12),
    ("gate", FFN_4),
    ("up", FFN_4),
    ("silu_mul", 6 + 4),
    ("down", FFN_4),
    ("add", 1 + 4),
    ("reduce stream", ALL_REDUCE_4[0]),
    ("broadcast stream", ALL_REDUCE_4[1]),
]

WORKFLOW_1_4 = [
    ("rmsnorm", 12),
    *((name, PROJECTION_4) for name in "qkv"),
    *BY_HEAD_4,
    ("reduce middle", ALL_REDUCE_4[0]),
    ("broadcast middle", ALL_REDUCE_4[1]),
    ("sum_of_squares", 1 + 4),
    ("reduce ffn_norm_statistic", 2 * 3 + 1),
    ("broadcast ffn_norm_statistic", 2 + 4 + 1),
    ("scale", 1 + 4),
    ("gate", FFN_4),
    ("up", FFN_4),
    ("reduce gate+up", 2 * 3 + 12),  # 768 bytes
    ("silu_mul", 6 + 4),  # at the root
    ("broadcast activated", 2 + 4 + 3),  # 192 bytes
    ("down", FFN_4),
    ("add", 1 + 4),
]
GATHER_4 = [2 * 3 + 2, 2 + 4 + 2]  # 16 cycles, as many as one message a PE: the tie goes to the reduction

ALL_ROW_4 = [
    ("rmsnorm", 12),
    *((name, PROJECTION_4) for name in "qkv"),
    *BY_HEAD_4[:-2],
    ("reduce attended", GATHER_4[0]),
    ("broadcast attended", GATHER_4[1]),
    ("o", PROJECTION_4),
    ("add", 1 + 4),
    ("reduce middle", GATHER_4[0]),
    ("broadcast middle", GATHER_4[1]),
    ("rmsnorm", 12),
    ("gate", FFN_4),
    ("up", FFN_4),
    ("silu_mul", 6 + 4),
    ("all-gather activated", 4 * (2 + 1) + 4),  # 48 bytes a PE; by reduction it would take 6 + 3 + 9
    ("down", FFN_4),
    ("add", 1 + 4),
]


def gathered(name):
    return [(f"reduce {name}", GATHER_4[0]), (f"broadcast {name}", GATHER_4[1])]


@pytest.mark.parametrize(
    ("workflow", "layer", "between", "before_end"),
    [
        ("megatron", MEGATRON_4, [], []),
        ("workflow-2", WORKFLOW_2_4, [], []),
        ("workflow-1", WORKFLOW_1_4, gathered("stream"), gathered("selected")),
        ("all-row", ALL_ROW_4, gathered("stream"), gathered("selected")),
    ],
)
@pytest.mark.parametrize("layers", [1, 3])
def test_four_pes(workflow, layer, between, before_end, layers):
    trace = simulate(workflow, 4, layers)
    expected = [*START, *layer, *(between + layer) * (layers - 1), *before_end, *END_4]
    assert durations(trace) == expected
    # nothing runs beside anything else: the step is the sum of its stages
    assert trace.makespan_cycles == sum(max(cycles) if isinstance(cycles, tuple) else cycles for _, cycles in expected)


class TestTwoPes:
    """One layer on two PEs, one stage after the other."""

    ENDS = (100 + 1) + (2 + 4 + 2) + 12 + (20 + 50 + 1 + 8) + (1 + 4) + (3 + 1) + (1 + 4)
    FFN = 12 + 2 * (20 + 96 + 1 + 8) + (2 * 6 + 4) + (20 + 96 + 1 + 8) + (1 + 4)
    ALL_REDUCE = (3 + 4) + (2 + 4 + 2)
    PROJECTION = 20 + 64 + 1 + 8  # 4096 bytes

    def test_megatron(self):
        attention = (
            (2 * 2 + 4)  # rope: 64 elements
            + 2  # append: 128 bytes
            + (20 + 2 * 11 + 8)  # scores of two heads
            + (2 * 6 + 4)  # 42 of them
            + (20 + 2 * 11 + 8)
        )
        layer = (
            12 + 3 * self.PROJECTION + attention + self.PROJECTION + 5 + self.ALL_REDUCE + self.FFN + self.ALL_REDUCE
        )
        assert simulate("megatron", 2).makespan_cycles == self.ENDS + layer

    def test_workflow_2(self):
        # PE 0 owns 11 of the 21 tokens and the new one: 352 bytes a head, 6 cycles
        attention = (
            (3 + 12)  # reduce q, k and v: 768 bytes
            + (2 + 4 + 6)
            + (4 * 2 + 4)
            + 4
            + (20 + 4 * 6 + 8)
            + (2 * 6 + 4)
            + (20 + 4 * 6 + 8)
            + (13 + 5)
            + (4 + 4)
            + (2 + 4 + 2)
        )
        layer = (
            12 + 3 * self.PROJECTION + attention + self.PROJECTION + 5 + self.ALL_REDUCE + self.FFN + self.ALL_REDUCE
        )
        assert simulate("workflow-2", 2).makespan_cycles == self.ENDS + layer

    def test_without_overlap(self):
        """Level 0: memory and compute add up, no fill."""
        ends = 101 + 8 + 12 + (20 + 50 + 8 + 8) + 5 + 4 + 5
        projection = 20 + 64 + 8 + 8
        attention = 8 + 2 + (20 + 22 + 4 + 8) + 16 + (20 + 22 + 4 + 8)
        ffn = 12 + 2 * (20 + 96 + 12 + 8) + 16 + (20 + 96 + 12 + 8) + 5
        layer = 12 + 3 * projection + attention + projection + 5 + self.ALL_REDUCE + ffn + self.ALL_REDUCE
        assert simulate("megatron", 2, overlap=0).makespan_cycles == ends + layer


class TestMorePesThanHeads:
    """Eight PEs, two a head: each has 4 rotary pairs of its head."""

    def test_scores_meet_in_the_head(self):
        stages = dict(durations(simulate("megatron", 8)))
        assert stages["q"] == 20 + 16 + 1 + 8  # 8 rows of 64: 1024 bytes
        assert stages["rope"] == 2 + 4
        assert stages["scores"] == 20 + 6 + 8  # 21 tokens · 16 bytes = 336
        # one level, 84 bytes each, all four at once; four multicasts of 42 bytes, one after the other
        assert stages["reduce scores"] == 3 + 2
        assert stages["broadcast scores"] == 4 * (2 + 1) + 4
        assert stages["softmax"] == 6 + 4

    def test_counts(self):
        trace = simulate("megatron", 8)
        traffic = trace.traffic["multicast"]
        assert (traffic.messages, traffic.bytes, traffic.busy_cycles) == (4, 4 * 42, 4 * 3)
        # reductions: 4 of scores, middle, stream, best
        reduce = trace.traffic["reduce"]
        assert (reduce.messages, reduce.bytes) == (7, 4 * 84 + 256 + 256 + 8)

    def test_a_downlink_takes_the_multicasts_off_the_bus(self):
        stages = dict(durations(simulate("megatron", 8, downlink=True)))
        assert stages["broadcast scores"] == 1 * 1 + 1

    def test_requests_of_joints_travel(self):
        plain, far = (simulate("megatron", 8, request=rho) for rho in (0, 7))
        # the root's broadcasts do not pay; the multicasts from the joints do, once for all
        assert far.makespan_cycles == plain.makespan_cycles + 7

    def test_one_idle_pe_of_nine(self):
        trace = simulate("megatron", 9)
        scores = next(span for span in trace.spans if span.name == "scores")
        assert [start >= 0 for start in scores.pe_start.tolist()] == [True] * 8 + [False]


def test_prefill_rows_multiply():
    stages = dict(durations(simulate("megatron", 4, step=Prefill(prompt_len=40))))
    assert stages["q"] == 20 + max(32, 40 * 4) + min(8, 40) + 8
    assert stages["rope"] == 40 * 2 + 4
    assert stages["kv_append"] == 2 * 40 * 32 // 64
    # row i sees i + 1 tokens: ceil / 16 is 1 for 16 rows, 2 for 16, 3 for 8; K is 40 · 32 bytes
    assert stages["scores"] == 20 + max(20, 16 + 32 + 24) + 8
    assert stages["values"] == 20 + max(20, 16 + 32 + 24) + 8
    assert stages["softmax"] == -(-(40 * 41 // 2) // 32) * 6 + 4
    assert stages["reduce middle"] == 2 * 3 + 40 * 4
    assert stages["broadcast middle"] == 2 + 4 + 40 * 2
    assert stages["embedding"] == 100 + 40 * 128 // 512
    # only the last row goes to the LM head
    assert stages["lm_head"] == (55, 55, 53, 53)
    assert stages["reduce best"] == 2 * 3 + 1


def test_causal_full_computes_the_rectangle():
    stages = dict(durations(simulate("megatron", 4, step=Prefill(prompt_len=40, causal="full"))))
    assert stages["scores"] == 20 + max(20, 40 * 3) + 8
    assert stages["softmax"] == 50 * 6 + 4


def test_each_sequence_streams_its_own_cache():
    # 4 and 22 tokens: 128 and 704 bytes are 2 and 11 cycles; one latency, one pipeline
    stages = dict(durations(simulate("megatron", 4, step=Decode(2, [3, 21]))))
    assert stages["scores"] == 20 + 2 + 11 + 8
    assert stages["lm_head"] == (20 + 26 + 2 + 8,) * 2 + (20 + 24 + 2 + 8,) * 2


def test_a_query_group_reads_its_kv_head_once():
    model = tiny_llama(num_hidden_layers=1, num_key_value_heads=1)
    trace = run_event(schedule_of(model, small_array(2), Decode(1, 200), "megatron"))
    stages = dict(durations(trace))
    # both PEs have the kv head: 201 · 32 bytes; two query heads, 13 columns each
    assert stages["scores"] == 20 + max(101, 2 * 13) + 8
    assert stages["k"] == 20 + 32 + 1 + 8


class TestEmptyShards:
    """A hidden size of 8 on 9 PEs, two heads of 4: PE 8 has no slice of anything."""

    @pytest.fixture
    def trace(self):
        model = tiny_llama(hidden_size=8, num_attention_heads=2, num_key_value_heads=2, num_hidden_layers=1)
        array = small_array(9, gather="serial", scatter="serial")
        return run_event(schedule_of(model, array, Decode(1, 5), "workflow-1"))

    def test_an_empty_shard_sends_nothing(self, trace):
        assert trace.traffic["scatter"].messages == 8
        assert trace.traffic["all-gather"].messages == 8

    def test_a_pe_without_a_slice_takes_no_part(self, trace):
        on_slices = [span for span in trace.spans if span.name in ("sum_of_squares", "scale", "gate", "up", "down")]
        on_slices.append([span for span in trace.spans if span.operator == "ffn_add" and span.name == "add"][-1])
        assert len(on_slices) == 6
        for span in on_slices:
            active = [start >= 0 for start in span.pe_start.tolist()]
            assert active == [True] * 8 + [False], span.name

    def test_the_last_add_starts_after_the_matrix_before_it(self, trace):
        add = next(span for span in trace.spans if span.operator == "ffn_add" and span.name == "add")
        down = next(span for span in trace.spans if span.name == "down")
        assert add.start >= down.end
