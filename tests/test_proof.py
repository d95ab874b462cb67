"""ps.execute and ps.verify as users call them, and `pe-sim verify`."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import pe_sim as ps
from pe_sim.cli.app import cli
from pe_sim.schedule.stages import Tag
from tests.golden.loader import load_case

MIXED = """
schema_version: 1
base: megatron
groups: 2
layers:
  - {layers: 0, qkv: col, attention: token}
  - {layers: 1, down: row, ffn_norm: root, activation: root}
"""


@pytest.fixture
def mixed(tmp_path):
    path = tmp_path / "mixed.yaml"
    path.write_text(MIXED)
    return path


def test_execute_gives_the_goldens_and_the_simulated_traffic():
    case = load_case("llama-gqa")
    step = ps.Decode(batch_size=3, context_len=8)
    array = ps.load_array("bus-tree-256", overrides={"num_pes": 5})
    out = ps.execute(case.config, array, step, workflow="workflow-2", weights=case.weights, tokens=case.tokens)
    np.testing.assert_allclose(out.logits, case.decode_logits, atol=1e-4)
    assert out.logits.dtype == np.float32
    simulated = ps.simulate(case.config, array, step, workflow="workflow-2").traffic
    assert out.traffic == simulated
    assert list(out.traffic) == [tag.value for tag in Tag]


def test_execute_reads_a_safetensors_file():
    case = load_case("gpt2")
    step = ps.Prefill(batch_size=3, prompt_len=9, logits="all")
    out = ps.execute(case.config, "bus-tree-64", step, weights=case.weights_path, tokens=case.tokens, dtype="float64")
    np.testing.assert_allclose(out.logits, case.logits, atol=1e-4)


def test_execute_runs_an_encoder():
    case = load_case("bert")
    step = ps.Prefill(batch_size=3, prompt_len=9)
    out = ps.execute(case.config, "bus-tree-64", step, "alternating", weights=case.weights, tokens=case.tokens)
    np.testing.assert_allclose(out.logits, case.hidden, atol=1e-4)
    np.testing.assert_allclose(out.pooled, case.pooled, atol=1e-4)


def test_misshapen_weights_name_tensor_and_shapes():
    case = load_case("llama-gqa")
    weights = dict(case.weights)
    name = "model.layers.0.self_attn.k_proj.weight"
    weights[name] = weights[name][:-1]
    with pytest.raises(ps.InputError) as caught:
        ps.execute(case.config, "bus-tree-64", ps.Decode(3, 8), weights=weights, tokens=case.tokens)
    text = str(caught.value)
    assert name in text
    assert str(weights[name].shape) in text
    assert str(case.weights[name].shape) in text


def test_tokens_out_of_range_are_refused():
    case = load_case("llama-gqa")
    tokens = np.array(case.tokens)
    tokens[1, 4] = case.config["vocab_size"]
    with pytest.raises(ps.InputError, match=str(case.config["vocab_size"])):
        ps.execute(case.config, "bus-tree-64", ps.Decode(3, 8), weights=case.weights, tokens=tokens)


@pytest.mark.parametrize("model", ["llama-3-8b", "gpt2", "bert-base-uncased"])
def test_verify_proves_a_users_own_workflow(model, mixed):
    proof = ps.verify(model, ps.load_array("bus-tree-64", overrides={"num_pes": 10}), mixed)
    assert proof.holds, str(proof)
    assert proof.workflow == "mixed"
    assert len(proof.verdicts) == (1 if model.startswith("bert") else 4)


def test_verify_takes_real_weights():
    case = load_case("llama-mha")
    proof = ps.verify(case.config, "bus-tree-64", "all-col", weights=case.weights_path)
    assert proof.holds, str(proof)
    assert proof.model.vocab_size == case.config["vocab_size"]


class TestCommand:
    def run(self, *arguments):
        return CliRunner().invoke(cli, ["verify", *map(str, arguments)])

    def test_says_that_it_is_proven(self):
        result = self.run("llama-2-7b", "--array", "bus-tree-64", "--set", "num_pes=6", "--workflow", "workflow-1")
        assert result.exit_code == 0
        assert result.stdout.splitlines()[-1] == "proven"

    def test_gives_json_alone(self, mixed):
        result = self.run("gpt2", "--array", "bus-tree-64", "--workflow", mixed, "--json", "-")
        found = json.loads(result.stdout)
        assert (found["schema"], found["holds"]) == ("pe-sim.proof/1", True)
        assert all(step["max_error"] < 1e-4 for step in found["steps"].values())

    def test_a_distribution_that_an_operator_cannot_have_names_those_it_can(self, tmp_path):
        path = tmp_path / "wrong.yaml"
        path.write_text("schema_version: 1\nbase: megatron\nlayers:\n  - {q: head}\n")
        result = self.run("llama-2-7b", "--array", "bus-tree-64", "--workflow", path)
        assert result.exit_code == 2
        assert "row or col or batch or replicate" in result.output

    def test_exit_code_of_a_failed_proof(self, monkeypatch):
        from pe_sim.numeric.proof import Verdict

        monkeypatch.setattr(Verdict, "holds", property(lambda self: False))
        result = self.run("gpt2", "--array", "bus-tree-64", "--set", "num_pes=2")
        assert result.exit_code == 1
        assert result.stdout.splitlines()[-1] == "NOT proven"
