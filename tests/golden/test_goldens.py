"""The golden files are whole: sizes, finite values, and configs that pe_sim reads as the library wrote them."""

from __future__ import annotations

import ast
from dataclasses import asdict, replace

import numpy as np
import pytest

from pe_sim.config.models.load import load_model
from pe_sim.numeric.reference import SequenceReference, run_reference
from pe_sim.numeric.state_dict import read_weights
from tests.golden.loader import HERE, GoldenCase, cases, load_case

BATCH, LENGTH, CHUNK = 3, 9, 4
TOLERANCE = 1e-4  # of the issue
# family, layers, hidden, heads, kv heads, head_dim, ffn, vocab: written by hand, not read from the configs
SIZES = {
    "bert": ("bert", 2, 48, 4, 4, 12, 80, 101),
    "gpt2": ("gpt2", 2, 48, 4, 4, 12, 92, 97),
    "llama-bias": ("llama", 2, 40, 4, 2, 10, 38, 61),
    "llama-gqa": ("llama", 2, 48, 8, 2, 6, 70, 131),
    "llama-head-dim": ("llama", 2, 36, 4, 2, 16, 38, 61),
    "llama-mha": ("llama", 2, 48, 4, 4, 12, 92, 131),
    "llama-mqa": ("llama", 3, 32, 4, 1, 8, 38, 61),
    "llama-rope-linear": ("llama", 2, 40, 4, 2, 10, 38, 61),
    "llama-rope-llama3": ("llama", 2, 40, 4, 2, 10, 38, 61),
    "llama-tied": ("llama", 2, 40, 4, 2, 10, 38, 61),
}


@pytest.fixture(params=cases())
def case(request: pytest.FixtureRequest) -> GoldenCase:
    return load_case(request.param)


def test_no_case_is_missing_or_unexpected():
    assert cases() == sorted(SIZES)


def test_the_config_loads_with_the_right_sizes(case: GoldenCase):
    model = load_model(case.config_path)
    assert SIZES[case.name] == (
        model.family,
        model.num_layers,
        model.hidden_size,
        model.num_heads,
        model.num_kv_heads,
        model.head_dim,
        model.ffn_size,
        model.vocab_size,
    )
    assert model.name == case.name
    assert model.norm_eps == 1e-3
    assert model.activation == {"llama": "silu", "gpt2": "gelu_tanh", "bert": "gelu"}[model.family]


def test_the_config_as_a_mapping_is_the_same_model(case: GoldenCase):
    assert replace(load_model(case.config), name=case.name) == load_model(case.config_path)


def test_the_features_of_the_cases_are_read():
    models = {name: load_model(HERE / name / "config.json") for name in cases() if name.startswith("llama")}
    assert [name for name, model in models.items() if model.tie_word_embeddings] == ["llama-tied"]
    assert [name for name, model in models.items() if model.attention_bias and model.mlp_bias] == ["llama-bias"]
    assert {name: model.rope_scaling["rope_type"] for name, model in models.items() if model.rope_scaling} == {
        "llama-rope-linear": "linear",
        "llama-rope-llama3": "llama3",
    }
    assert models["llama-rope-llama3"].rope_theta == 100.0


def test_the_weights_are_all_the_parameters(case: GoldenCase):
    assert sum(weight.size for weight in case.weights.values()) == load_model(case.config_path).num_parameters
    assert {weight.dtype for weight in case.weights.values()} == {np.dtype(np.float32)}


def test_no_weight_is_constant_or_not_finite(case: GoldenCase):
    for name, weight in case.weights.items():
        assert np.isfinite(weight).all(), name
        assert weight.std() > 0.1, name


def test_the_tokens_are_different_and_in_range(case: GoldenCase):
    assert case.tokens.shape == (BATCH, LENGTH)
    assert case.tokens.min() >= 0
    assert case.tokens.max() < load_model(case.config_path).vocab_size
    assert len({tuple(row) for row in case.tokens.tolist()}) == BATCH


def test_the_outputs_have_their_shapes_and_are_finite(case: GoldenCase):
    model = load_model(case.config_path)
    if case.is_decoder:
        outputs = {
            "logits": (case.logits, (BATCH, LENGTH, model.vocab_size)),
            "decode_logits": (case.decode_logits, (BATCH, 1, model.vocab_size)),
            "chunk_logits": (case.chunk_logits, (BATCH, CHUNK, model.vocab_size)),
        }
        assert case.hidden is None
        assert case.pooled is None
    else:
        outputs = {
            "hidden": (case.hidden, (BATCH, LENGTH, model.hidden_size)),
            "pooled": (case.pooled, (BATCH, model.hidden_size)),
        }
    for name, (array, shape) in outputs.items():
        assert array is not None, name
        assert (array.shape, array.dtype) == (shape, np.float32), name
        assert np.isfinite(array).all(), name
        assert array.std() > 0.5, name


def test_decode_and_chunks_continue_the_prefill(case: GoldenCase):
    if case.logits is None or case.decode_logits is None or case.chunk_logits is None:
        assert not load_model(case.config_path).has_kv_cache
        return
    np.testing.assert_allclose(case.decode_logits, case.logits[:, -1:], rtol=0, atol=2e-5)
    np.testing.assert_allclose(case.chunk_logits, case.logits[:, -case.chunk :], rtol=0, atol=2e-5)


def _reference(case: GoldenCase, dtype: str = "float32", **changes: object) -> list[SequenceReference]:
    model = load_model(case.config)
    weights = read_weights(model, case.weights, dtype)
    return run_reference(replace(model, **changes), weights, list(case.tokens))


def _outputs(case: GoldenCase, references: list[SequenceReference]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What the references computed and the golden of it, by its name."""
    output = np.stack([reference.output for reference in references])
    if not case.is_decoder:
        pooled = np.stack([reference.pooled for reference in references])
        return {"hidden": (output, case.hidden), "pooled": (pooled, case.pooled)}
    return {
        "logits": (output, case.logits),
        "decode_logits": (output[:, -1:], case.decode_logits),
        "chunk_logits": (output[:, -case.chunk :], case.chunk_logits),
    }


def _departure(case: GoldenCase, references: list[SequenceReference]) -> float:
    return max(float(np.abs(computed - golden).max()) for computed, golden in _outputs(case, references).values())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reference_matches_goldens(case: GoldenCase, dtype: str):
    for name, (computed, golden) in _outputs(case, _reference(case, dtype)).items():
        np.testing.assert_allclose(computed, golden, rtol=0, atol=TOLERANCE, err_msg=name)
        assert computed.dtype == dtype


def test_the_weights_file_reads_as_its_arrays_do(case: GoldenCase):
    model = load_model(case.config_path)
    from_file, from_arrays = read_weights(model, case.weights_path), read_weights(model, case.weights)
    np.testing.assert_equal(asdict(from_file), asdict(from_arrays))
    assert _departure(case, run_reference(model, from_file, list(case.tokens))) < TOLERANCE
    assert read_weights(model, case.weights_path).ignored == ()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama-mha", {"norm_eps": 1e-5}),
        ("llama-mha", {"rope_theta": 5000.0}),
        ("llama-rope-linear", {"rope_scaling": {}}),
        ("llama-rope-llama3", {"rope_scaling": {}}),
        ("llama-rope-llama3", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
        ("gpt2", {"norm_eps": 1e-5}),
        ("gpt2", {"activation": "gelu"}),
        ("bert", {"norm_eps": 1e-5}),
        ("bert", {"activation": "gelu_tanh"}),
    ],
)
def test_the_goldens_tell_a_slightly_different_model(name: str, changes: dict[str, object]):
    case = load_case(name)
    assert _departure(case, _reference(case, **changes)) > 5 * TOLERANCE


def test_every_weight_shows_in_the_goldens(case: GoldenCase):
    model = load_model(case.config)
    hidden = set()
    for name, weight in case.weights.items():
        weights = read_weights(model, case.weights | {name: weight * np.float32(1.1)})
        if _departure(case, run_reference(model, weights, list(case.tokens))) < 5 * TOLERANCE:
            hidden.add(name)
    # Without a rotation between them, a bias of the keys adds the same to all scores of a query: softmax takes it away.
    assert hidden == {name for name in case.weights if name.endswith("attention.self.key.bias")}


def test_the_files_stay_small():
    assert sum(path.stat().st_size for path in HERE.glob("*/*") if path.parent.name in SIZES) < 1_500_000


def test_an_unknown_case_names_those_there_are():
    with pytest.raises(ValueError, match=r"no golden case 'llama'; there are bert, gpt2, llama-bias, "):
        load_case("llama")


def test_the_tests_do_not_need_the_library():
    for path in HERE.glob("*.py"):
        if path.name == "make_goldens.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in imported} & {"torch", "transformers"}, path.name
