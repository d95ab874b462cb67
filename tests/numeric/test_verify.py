from dataclasses import replace

import numpy as np
import pytest

from pe_sim.config.files.loading import preset_names
from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.mapping.mapper import place
from pe_sim.mapping.placed import Work
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.numeric.proof import Proof, Verdict, relative_error, scaled_down, traffic_differences, verify_placed
from pe_sim.numeric.state_dict import random_weights
from pe_sim.trace import TagTraffic
from tests.helpers import small_array
from tests.numeric.cases import llama, prove, tokens_of, weights_of

STEP = Decode(2, context_len=[3, 5])


def placed_step(workflow="workflow-1"):
    return place(llama(), small_array(4), STEP, WORKFLOWS[workflow])


def with_node(placed, wanted, change):
    """The graph with one node of its layer changed."""
    at = next(run.block for run in placed.sequence if run.layer is not None)
    nodes = tuple(change(node) if wanted(node) else node for node in placed.blocks[at].nodes)
    block = replace(placed.blocks[at], nodes=nodes)
    return replace(placed, blocks=(*placed.blocks[:at], block, *placed.blocks[at + 1 :]))


def test_a_sound_program_holds_and_says_so():
    verdict = prove(llama(), small_array(4), STEP, "workflow-1", weights_of("llama"))
    assert verdict.holds
    lines = str(verdict).splitlines()
    assert lines[0] == "holds"
    assert lines[1] == "  results: within 0.0001 of the largest element"
    assert lines[2] == "  traffic: equal to the timed one, message for message and byte for byte"


@pytest.mark.parametrize("operator", ["silu_mul", "rope", "attention_norm"])
def test_the_first_operator_to_depart_is_named(operator):
    tensor = {"silu_mul": "activated", "rope": "q_rotated", "attention_norm": "attention_normed"}[operator]

    def spoil(node):
        # gate is used twice; keys are rotated as queries are; the stream goes on without its norm
        if operator == "silu_mul":
            return replace(node, inputs=(node.inputs[0], node.inputs[0]))
        if operator == "rope":
            return replace(node, function="add_nothing")
        return replace(node, function="tanh")

    spoiled = with_node(placed_step(), lambda node: isinstance(node, Work) and node.operator.name == operator, spoil)
    verdict = verify_placed(spoiled, llama(), weights_of("llama"), tokens_of(llama(), STEP))
    assert not verdict.computes_the_model
    if operator == "rope":
        assert "the placed graph cannot be executed: nothing computes 'add_nothing'" in str(verdict)
        return
    assert (verdict.departure.layer, verdict.departure.tensor) == (0, tensor)
    assert f"layers.0.{operator}" in str(verdict)
    assert str(verdict).startswith("does not hold")


def test_other_traffic_does_not_hold():
    timed = {"reduce": TagTraffic(1, 2, 3)}
    verdict = verify_placed(placed_step(), llama(), weights_of("llama"), tokens_of(llama(), STEP), traffic=timed)
    assert verdict.computes_the_model
    assert not verdict.holds
    assert "of 2 were timed" in str(verdict)
    assert "broadcast" in str(verdict)


def test_traffic_that_is_not_given_is_not_judged():
    verdict = verify_placed(placed_step(), llama(), weights_of("llama"), tokens_of(llama(), STEP))
    assert verdict.holds
    assert "traffic: not compared" in str(verdict)


def test_what_is_shown_is_the_same_whatever_rounding_made_of_the_results():
    """Another processor or another BLAS adds in another order."""
    verdicts = [Verdict(error, 1e-4, True, None, ()) for error in (0.0, 9e-8, 8.9e-7, 1.1e-6, 9.9e-5)]
    proofs = [Proof(llama(), "one", 4, "workflow-1", {"step": verdict}) for verdict in verdicts]
    assert len({str(proof) for proof in proofs}) == 1
    assert len({proof._repr_html_() for proof in proofs}) == 1
    wrong = Proof(llama(), "one", 4, "workflow-1", {"step": replace(verdicts[0], max_error=0.0021)})
    for shown in (str(wrong), wrong._repr_html_().replace("&gt;", ">")):
        assert "off by 0.0021 of the largest element (> 0.0001)" in shown
        assert "does not hold" in shown


def test_busy_cycles_are_the_engines_alone():
    assert not list(traffic_differences({"reduce": TagTraffic(1, 2, 0)}, {"reduce": TagTraffic(1, 2, 9)}))
    assert list(traffic_differences({"reduce": TagTraffic(1, 2)}, {})) == [
        "reduce: 1 messages of 2 bytes were moved, 0 of 0 were timed"
    ]


def test_relative_error():
    assert relative_error(np.array([1.0, 2.0]), np.array([1.0, 2.5])) == 0.5 / 2.5
    assert relative_error(np.array([0.1]), np.array([0.2])) == pytest.approx(0.1)
    assert relative_error(np.array([np.nan, np.inf]), np.array([np.nan, np.inf])) == 0
    assert relative_error(np.array([np.nan]), np.array([1.0])) == np.inf
    assert relative_error(np.array([1.0]), np.array([np.nan])) == np.inf
    assert relative_error(np.zeros(2), np.zeros(3)) == np.inf
    assert relative_error(np.zeros(0), np.zeros(0)) == 0


@pytest.mark.parametrize("name", preset_names("models"))
def test_a_preset_scaled_down_keeps_its_structure_and_holds(name):
    model = load_model(name)
    small = scaled_down(model, 6)
    assert small.num_parameters < 200_000
    for field in ("family", "norm", "activation", "attention_bias", "mlp_bias", "tie_word_embeddings", "position"):
        assert getattr(small, field) == getattr(model, field)
    assert (small.heads_per_kv_head == 1) == (model.heads_per_kv_head == 1)
    step = Decode(2, context_len=[3, 2]) if model.has_kv_cache else Prefill(2, prompt_len=[3, 2])
    verdict = prove(small, small_array(6), step, "workflow-1", random_weights(small, 0))
    assert verdict.holds, str(verdict)


def test_scaling_down_keeps_one_kv_head_and_takes_a_number_of_layers():
    assert scaled_down(llama(num_key_value_heads=1), 4).num_kv_heads == 1
    assert scaled_down(llama(num_key_value_heads=1), 4).num_heads == 4
    assert scaled_down(load_model("llama-2-7b"), 4, num_layers=7).num_layers == 7
    assert scaled_down(load_model("llama-2-7b"), 4096).ffn_size <= 512
