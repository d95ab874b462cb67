"""Hypothesis draws small models, steps, and arrays of every interconnect with all that a step's cycles depend on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import strategies as st

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.load import array_to_dict, load_array
from pe_sim.config.networks.network import Network
from pe_sim.config.step import Decode, Prefill
from pe_sim.mapping.workflow import WORKFLOWS, Workflow
from pe_sim.network.interconnect import interconnect_of
from tests.helpers import small_array, tiny_llama
from tests.network.networks import SECTIONS, array_of, sizes_of

KINDS = sorted(set(SECTIONS) - {"bus_tree"})
WAY = st.sampled_from(["serial", "by_reduction", "best"])

models = st.builds(
    lambda kv_heads, share, head_dim, ffn, layers, vocab: tiny_llama(
        hidden_size=kv_heads * share * head_dim,
        num_attention_heads=kv_heads * share,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        vocab_size=vocab,
    ),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([2, 6, 16]),
    st.integers(1, 130),
    st.integers(1, 3),
    st.integers(2, 90),
)
steps = st.one_of(
    st.lists(st.integers(0, 90), min_size=1, max_size=5).map(lambda lens: Decode(context_len=lens)),
    st.tuples(
        st.lists(st.integers(1, 12), min_size=1, max_size=3),
        st.integers(0, 9),
        st.sampled_from(["last", "all"]),
        st.sampled_from(["skip", "full"]),
    ).map(lambda t: Prefill(prompt_len=t[0], context_len=t[1], logits=t[2], causal=t[3])),
)
memories = st.one_of(
    st.fixed_dictionaries(
        {
            "technology": st.just("flat"),
            "capacity_bytes": st.just(2**27),
            "bytes_per_cycle": st.sampled_from([1, 8, 64]),
            "latency_cycles": st.sampled_from([0, 20, 300]),
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("dram_bank"),
            "technology": st.just("bank"),
            "capacity_bytes": st.just(2**27),
            "row_bytes": st.sampled_from([32, 96, 2048]),
            "column_bytes": st.sampled_from([8, 32]),
            "column_cycles": st.integers(1, 4),
            "activate_cycles": st.sampled_from([1, 20, 56]),
            "precharge_cycles": st.sampled_from([0, 1, 32]),
            "read_to_precharge_cycles": st.sampled_from([0, 2, 12]),
        }
    ),
)
_UNITS = {  # of PEs and the root; a root whose memory is slower than any bus among them
    "overlap": st.integers(0, 3),
    "pe.memory": memories,
    "pe.matrix.outputs": st.sampled_from([1, 5, 16]),
    "pe.matrix.depth": st.sampled_from([3, 16, 32]),
    "pe.matrix.latency_cycles": st.sampled_from([0, 8]),
    "pe.buffer.prefetch_bytes": st.sampled_from([0, 100, 65536]),
    "pe.buffer.capacity_bytes": st.sampled_from([600, 262144]),
    "root.memory.bytes_per_cycle": st.sampled_from([1, 3, 512]),
    "root.memory.latency_cycles": st.sampled_from([0, 100]),
    "network.collectives.gather": WAY,
    "network.collectives.scatter": WAY,
}
units = st.fixed_dictionaries(_UNITS)
knobs = st.fixed_dictionaries(  # of an array with one bus and one tree, whose messages are whole
    {
        **_UNITS,
        "network.tree.arity": st.sampled_from([2, 3, 4]),
        "network.tree.downlink": st.booleans(),
        "network.tree.latency_cycles": st.integers(1, 3),
        "network.tree.combine_cycles": st.integers(0, 5),
        "network.tree.bytes_per_cycle": st.sampled_from([4, 64]),
        "network.bus.bytes_per_cycle": st.sampled_from([1, 16, 256]),
        "network.bus.latency_cycles": st.sampled_from([0, 4]),
        "network.bus.overhead_cycles": st.sampled_from([0, 2]),
        "network.bus.request_cycles": st.integers(0, 6),
        "network.bus.burst_bytes": st.sampled_from([None, 10**9]),
    }
)
bursts = st.sampled_from([None, 10**9, 1000, 100, 64, 7])  # greater than messages, equal to some, smaller
links = st.fixed_dictionaries(
    {
        "bytes_per_cycle": st.sampled_from([1, 4, 64]),
        "latency_cycles": st.sampled_from([0, 0, 1, 7]),
        "overhead_cycles": st.sampled_from([0, 0, 1, 3]),
        "request_cycles": st.sampled_from([0, 0, 4]),
        "ramp_cycles": st.sampled_from([0, 0, 3]),
    }
)
delays = st.fixed_dictionaries(  # at the nodes of a graph of channels
    {
        "combine_cycles": st.sampled_from([0, 0, 1, 4]),
        "forward_cycles": st.sampled_from([0, 0, 3]),
        "softmax_combine_cycles": st.sampled_from([0, 9]),
    }
)


@st.composite
def bus_trees(draw, most: int = 16) -> ArrayConfig:
    """An array with one bus and one tree."""
    changes = draw(knobs) | {"network.bus.burst_bytes": draw(bursts)}
    return small_array(draw(st.integers(1, most)), changes)


@st.composite
def graphs(draw, most: int = 12) -> ArrayConfig:
    """An array of another interconnect."""
    kind = draw(st.sampled_from(KINDS))
    section = draw(delays)
    if kind == "hierarchical_bus":
        overhead, flight = draw(st.sampled_from([0, 2])), draw(st.sampled_from([0, 3]))
        tree = SECTIONS[kind]["top"]["tree"]
        bus = {"bytes_per_cycle": draw(st.sampled_from([4, 64])), "request_cycles": draw(st.integers(0, 2))}
        slow = {**bus, "latency_cycles": flight, "overhead_cycles": overhead}
        section[draw(st.sampled_from(["top", "cluster"]))] = {"bus": slow, "tree": tree}
    else:
        section["link"] = draw(links)
    array = array_of(kind, draw(st.sampled_from([size for size in sizes_of(kind) if size <= most])), **section)
    return load_array(array_to_dict(array), overrides=draw(units))


def oddities(array: ArrayConfig) -> Iterator[str]:
    """What of an array's channels engines may disagree on."""
    network, root_rate = array.network, array.root.memory.bytes_per_cycle
    if isinstance(network, Network):
        bus = network.bus
        width, free, request = bus.bytes_per_cycle, bus.latency_cycles + bus.overhead_cycles == 0, bus.request_cycles
        if bus.burst_bytes is not None:
            yield "whole messages in bursts"
    else:
        channels = interconnect_of(array).topology.channels
        width, request = int(channels.bytes_per_cycle.max(initial=0)), int(channels.request_cycles.max(initial=0))
        free = bool((channels.latency_cycles + channels.overhead_cycles == 0).any())
    if root_rate < width:
        yield "a root slower than a channel"
    if free:
        yield "a channel without latency"
    if request:
        yield "requests that travel"


@st.composite
def workflows(draw, num_pes: int) -> Workflow:
    """A named workflow on some groups, if it takes any."""
    chosen = WORKFLOWS[draw(st.sampled_from(sorted(WORKFLOWS)))]
    divisors = [count for count in range(1, num_pes + 1) if num_pes % count == 0]
    return chosen if chosen.pipelined else replace(chosen, groups=draw(st.sampled_from(divisors[:4])))
