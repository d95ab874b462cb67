"""What tests of several rooms share: small machines and models, and a look into placed graphs and traces."""

import functools
import inspect
import io
import itertools
import sys
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings

from pe_sim.config.arrays.load import load_array
from pe_sim.config.models.load import load_model
from pe_sim.graph.operators import AttentionShape
from pe_sim.mapping import layouts, mapper
from pe_sim.mapping.footprint import footprint
from pe_sim.mapping.groups import PeGroups
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.report.compare import compare_table
from pe_sim.schedule.lowering import lower

NAMED_WORKFLOWS = ("workflow-1", "workflow-2", "alternating", "megatron", "all-row", "all-col")


def render_report(report):
    """What a report prints, as plain text."""
    text = io.StringIO()
    report.print(text)
    return text.getvalue()


def render_comparison(reports, labels=None):
    """What `compare_table` prints, as plain text."""
    text = io.StringIO()
    compare_table(reports, labels, text)
    return text.getvalue()


def given_in_both(quick, slow, *strategies, suppress=(), **named):
    """Hypothesis's `given` twice: `quick` examples with the quick tests, `slow` ones with the slow tests.

    Args:
        strategies, named: as `given` takes them.
        suppress: health checks to leave out.
    """

    def decorate(test):
        options = {"deadline": None, "suppress_health_check": suppress}
        runs = {
            most: settings(max_examples=most, **options)(given(*strategies, **named)(test)) for most in (quick, slow)
        }
        signature = inspect.signature(runs[slow])
        examples = inspect.Parameter("examples", inspect.Parameter.KEYWORD_ONLY)

        @pytest.mark.parametrize("examples", [quick, pytest.param(slow, marks=pytest.mark.slow)])
        @functools.wraps(test)
        def run(*args, examples, **fixtures):
            runs[examples](*args, **fixtures)

        run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), examples])
        return run

    return decorate


# The machine of the contract's worked examples (section 10), with nothing derived from a floor plan.
EXPLICIT = {
    "network.bus.bytes_per_cycle": 64,
    "network.bus.latency_cycles": 4,
    "network.bus.overhead_cycles": 2,
    "network.bus.request_cycles": 0,
    "network.tree.arity": 2,
    "network.tree.bytes_per_cycle": 64,
    "network.tree.latency_cycles": 1,
    "network.tree.combine_cycles": 2,
    "network.tree.softmax_combine_cycles": 12,
}

# What keyword arguments of `small_array` stand for.
SHORT = {
    "width": "network.bus.bytes_per_cycle",
    "latency": "network.bus.latency_cycles",
    "overhead": "network.bus.overhead_cycles",
    "request": "network.bus.request_cycles",
    "burst": "network.bus.burst_bytes",
    "arity": "network.tree.arity",
    "tree_width": "network.tree.bytes_per_cycle",
    "hop": "network.tree.latency_cycles",
    "combine": "network.tree.combine_cycles",
    "softmax_combine": "network.tree.softmax_combine_cycles",
    "downlink": "network.tree.downlink",
    "gather": "network.collectives.gather",
    "scatter": "network.collectives.scatter",
    "overlap": "overlap",
}


# A LLaMA model in Hugging Face's form.
TINY_LLAMA = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 50,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}


def thinned(*axes):
    """Every case of a product for `parametrize`; those beyond a sample of it are slow.

    The sample has every combination of all axes but one, whichever is left out: all pairs of three axes.
    """

    def marks(places):
        return () if in_sample(places, map(len, axes)) else pytest.mark.slow

    places = itertools.product(*(range(len(axis)) for axis in axes))
    return [pytest.param(*case, marks=marks(at)) for case, at in zip(itertools.product(*axes), places, strict=True)]


def diagonal(*axes):
    """As `thinned`, with a smaller sample: as many cases as the longest axis has, in which every value stands."""
    sizes = [len(axis) for axis in axes]
    quick = {tuple(number % size for size in sizes) for number in range(max(sizes))}
    places = itertools.product(*map(range, sizes))
    return [
        pytest.param(*case, marks=() if at in quick else pytest.mark.slow)
        for case, at in zip(itertools.product(*axes), places, strict=True)
    ]


def some_of(values, quick):
    """Every value for `parametrize`; those beyond `quick` of them, evenly spread, are slow."""
    values = list(values)
    chosen = {number * len(values) // quick for number in range(quick)}
    return [pytest.param(value, marks=() if at in chosen else pytest.mark.slow) for at, value in enumerate(values)]


def in_sample(places, sizes):
    """Whether a case, by its places on the axes of a product, is in the sample that `thinned` keeps quick."""
    return sum(places) % min(sizes) == 0


def calls_in(act):
    """How many Python functions `act` calls, generators' steps counted: work that no machine's speed changes."""
    count = 0

    def count_call(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(count_call)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def ceil(numerator, denominator):
    """The mathematical ceiling of a quotient of integers."""
    return -(-numerator // denominator)


def small_array(num_pes, overrides=None, **short):
    """bus-tree-256 with `num_pes` PEs and explicit latencies; dotted `overrides`, or the keywords of `SHORT`."""
    changes = {**EXPLICIT, "num_pes": num_pes, **{SHORT[key]: value for key, value in short.items()}}
    return load_array("bus-tree-256", overrides={**changes, **(overrides or {})})


def tiny_llama(**changes):
    """A LLaMA model in Hugging Face's form: hidden 64, 4 heads of 16, ffn 96, vocabulary 50, 2 layers."""
    return load_model({**TINY_LLAMA, **changes})


def placed_step(model, array, step, workflow):
    """The placed graph under a workflow's name."""
    model = load_model(model) if isinstance(model, str) else model
    return place(model, array, step, WORKFLOWS[workflow])


def schedule_of(model, array, step, workflow):
    """The schedule under a workflow's name."""
    return lower(placed_step(model, array, step, workflow))


def block_runs(sequence):
    """(block index, layer) of every run."""
    return [(run.block, run.layer) for run in sequence]


def layer_blocks(graph_or_schedule):
    """The blocks of layers 0, 1, ... in order."""
    runs = block_runs(graph_or_schedule.sequence)
    return [graph_or_schedule.blocks[index] for index, layer in runs if layer is not None]


def end_blocks(graph_or_schedule):
    """The blocks outside the layers: the prologue and the epilogue."""
    runs = block_runs(graph_or_schedule.sequence)
    return [graph_or_schedule.blocks[index] for index, layer in runs if layer is None]


def layouts_of(placed):
    """The layouts of a placed graph whose blocks all have the same."""
    return placed.blocks[-1].layouts


def bus_uses(trace, channel="bus"):
    """(start, end, stage order, bytes) of each occupancy of a channel, in order of the grants."""
    use = trace.channel_use
    mine = np.flatnonzero(use.channel == use.channels.index(channel))
    return [(int(use.start[i]), int(use.end[i]), int(use.stage[i]), int(use.num_bytes[i])) for i in mine]


def traffic_of(trace):
    """{tag: (messages, bytes, busy cycles)}."""
    return {tag: (use.messages, use.bytes, use.busy_cycles) for tag, use in trace.traffic.items()}


def no_overlap(intervals):
    """Whether [start, end) intervals, sorted by start, are disjoint."""
    ordered = sorted(intervals)
    return all(first[1] <= second[0] for first, second in itertools.pairwise(ordered))


def side_by_side(*schedules):
    """One block with the stages of several one-block schedules, independent of each other, in program order."""
    stages, offset = [], 0
    for schedule in schedules:
        (block,) = schedule.blocks
        for stage in block.stages:
            inputs = tuple(slot + offset for slot in stage.inputs)
            stages.append(replace(stage, inputs=inputs, output=stage.output + offset))
        offset += block.num_slots
    block = replace(schedules[0].blocks[0], stages=tuple(stages), num_slots=offset)
    return replace(schedules[0], blocks=(block,))


@contextmanager
def blocks_of(size):
    """Lets PEs share heads in blocks of this size, whatever is fastest."""
    with patch.object(layouts, "block_size", lambda *_: size):
        mapper._place_pipeline.cache_clear()
        yield
    mapper._place_pipeline.cache_clear()


def pe_groups(num_pes, num_groups=1, arity=2, num_sequences=1):
    """The whole array in equal groups."""
    return PeGroups.of_array(num_pes, num_groups, arity, num_sequences)


def attention(heads, kv_heads, head_dim, new=(1,), context=(0,), causal_skip=True):
    """The geometry of attention: lengths per sequence."""
    return AttentionShape(heads, kv_heads, head_dim, tuple(new), tuple(context), causal_skip)


def layouts_for(array, shape, num_groups=1, selected_per_sequence=None):
    """How one step is cut on an array."""
    groups = pe_groups(array.num_pes, num_groups, array.network.tree.arity, len(shape.new_lens))
    return Layouts.on(array, groups, shape, selected_per_sequence)


def footprint_of(model, array, step, workflow):
    """The footprint of a step under a workflow's name."""
    placed = placed_step(model, array, step, workflow)
    return footprint(placed, placed.graph.shape)
