"""The proof with dead PEs: logits and traffic of every workflow, whichever PEs are dead."""

from dataclasses import replace

import pytest
from hypothesis import strategies as st

import pe_sim as ps
from pe_sim.config.arrays.load import array_to_dict, load_array
from pe_sim.config.step import Decode, Prefill
from pe_sim.mapping.attention_split import block_sizes
from pe_sim.mapping.groups import PeGroups, groups_alive
from pe_sim.mapping.workflow import WORKFLOWS
from tests.helpers import blocks_of, diagonal, given_in_both, small_array
from tests.network.networks import array_of
from tests.numeric.cases import llama as tiny
from tests.numeric.cases import prove, weights_of
from tests.numeric.test_every_topology import check

# Of 16 PEs and 4 heads: a first PE, two of one head's, one of each head's, whole blocks, all but one.
DEAD = ([0], [5, 6], [0, 5, 10, 15], [4, 5, 6, 7, 8], [*range(11), 12, 13, 14, 15])


@pytest.mark.parametrize(("dead", "workflow"), diagonal(DEAD, list(WORKFLOWS)))
def test_every_workflow(workflow, dead):
    check(small_array(16, {"dead_pes": dead}), workflow)


@pytest.mark.parametrize(("kind", "workflow"), diagonal(["mesh", "ring"], list(WORKFLOWS)))
def test_on_graphs_of_channels(workflow, kind):
    check(load_array(array_to_dict(array_of(kind, 16)), overrides={"dead_pes": [0, 5, 6]}), workflow)


@given_in_both(
    8,
    40,
    st.integers(2, 24),
    st.sampled_from(sorted(WORKFLOWS)),
    st.sampled_from([Decode(context_len=[7, 2, 5]), Prefill(prompt_len=[4, 1, 3], context_len=2)]),
    st.data(),
)
def test_any_dead_pes_and_groups(num_pes, name, step, data):
    used = num_pes // 2 * 2  # by the pipeline of two layers
    dead = data.draw(st.sets(st.integers(0, num_pes - 1), min_size=1, max_size=used - 1))
    array, workflow = small_array(num_pes, {"dead_pes": sorted(dead)}), WORKFLOWS[name]
    if not workflow.pipelined:
        groups = data.draw(st.sampled_from(groups_alive(num_pes, array.dead_pes)[:4]))
        workflow = replace(workflow, groups=groups)
    verdict = prove(tiny(), array, step, workflow, weights=weights_of("llama"))
    assert verdict.holds, verdict


@given_in_both(
    8,
    40,
    st.integers(2, 24),
    st.sampled_from(["bus_tree", "mesh", "crossbar"]),
    st.sampled_from([Decode(context_len=[7, 2, 5]), Prefill(prompt_len=[4, 1, 3], context_len=2)]),
    st.booleans(),
    st.data(),
)
def test_blocks_of_any_size(num_pes, kind, step, one_dead, data):
    """Several heads of each kv head in a block, blocks cut off by the array's end, with a dead PE or without."""
    array = array_of(kind, num_pes)
    dead = (data.draw(st.integers(0, num_pes - 1)),) * one_dead
    array = load_array(array_to_dict(array), overrides={"dead_pes": list(dead)})
    division = PeGroups.of_array(num_pes, 1, array.network.arity, 1, dead)
    with blocks_of(data.draw(st.sampled_from(block_sizes(division)))):
        verdict = prove(tiny(), array, step, "megatron", weights=weights_of("llama"))
    assert verdict.holds, verdict


def test_the_command_proves_it_too():
    array = ps.load_array("bus-tree-64", {"num_pes": 12, "dead_pes": [1, 7]})
    assert ps.verify("llama-3-8b", array, "megatron").holds
