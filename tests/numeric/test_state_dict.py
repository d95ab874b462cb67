import numpy as np
import pytest

from pe_sim.errors import InputError
from pe_sim.numeric.state_dict import random_weights, read_weights, state_dict_shapes
from tests.numeric.cases import FAMILIES, bert, gpt2, llama

PREFIXES = {"llama": "model.", "gpt2": "transformer.", "bert": "bert."}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shapes_hold_every_parameter_once(family):
    model = FAMILIES[family]()
    assert sum(int(np.prod(shape)) for shape in state_dict_shapes(model).values()) == model.num_parameters


@pytest.mark.parametrize("changes", [{"attention_bias": True}, {"mlp_bias": True}, {"tie_word_embeddings": True}])
def test_the_shapes_follow_biases_and_tying(changes):
    model = llama(**changes)
    assert sum(int(np.prod(shape)) for shape in state_dict_shapes(model).values()) == model.num_parameters


@pytest.mark.parametrize("family", FAMILIES)
def test_names_with_and_without_the_prefix_are_the_same(family):
    model, prefix = FAMILIES[family](), PREFIXES[family]
    given = random_weights(model, 0)
    bare = {name.removeprefix(prefix): array for name, array in given.items()}
    full = {name if name.startswith((prefix, "lm_head")) else prefix + name: array for name, array in given.items()}
    for named in (bare, full):
        read = read_weights(model, named)
        assert read.ignored == ()
        assert (
            read.layers[1].matrices["down"].weight == read_weights(model, given).layers[1].matrices["down"].weight
        ).all()


def test_gpt2_splits_its_fused_and_transposed_matrix():
    model = gpt2()
    given = random_weights(model, 0)
    fused, bias = given["transformer.h.1.attn.c_attn.weight"], given["transformer.h.1.attn.c_attn.bias"]
    matrices = read_weights(model, given).layers[1].matrices
    for at, name in enumerate("qkv"):
        assert (matrices[name].weight == fused[:, 24 * at : 24 * (at + 1)].T).all()
        assert (matrices[name].bias == bias[24 * at : 24 * (at + 1)]).all()
    assert matrices["up"].weight.shape == (96, 24)


def test_old_bert_names_of_norms_are_read():
    model = bert()
    given = random_weights(model, 0)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in given.items()
    }
    norm = read_weights(model, old).norm(0, "attention_norm")
    assert (norm.gain == given["encoder.layer.0.attention.output.LayerNorm.weight"]).all()
    assert (norm.bias == given["encoder.layer.0.attention.output.LayerNorm.bias"]).all()


def test_a_tied_head_is_the_token_table_even_if_another_is_given():
    model = llama(tie_word_embeddings=True)
    given = random_weights(model, 0) | {"lm_head.weight": np.zeros((41, 24), dtype=np.float32)}
    read = read_weights(model, given)
    assert read.matrix(None, "lm_head").weight is read.tables[0]


def test_what_is_not_needed_is_listed_but_buffers_are_not():
    model = gpt2()
    given = random_weights(model, 0) | {"score.weight": np.zeros(3), "transformer.h.0.attn.bias": np.ones((1, 1, 4, 4))}
    assert read_weights(model, given).ignored == ("score.weight",)


def test_a_missing_weight_is_named_with_its_shape_and_the_nearest_name():
    model = llama()
    given = random_weights(model, 0)
    given["model.layers.1.self_attn.kproj.weight"] = given.pop("model.layers.1.self_attn.k_proj.weight")
    with pytest.raises(InputError) as caught:
        read_weights(model, given)
    assert str(caught.value) == (
        "weights: model.layers.1.self_attn.k_proj.weight: this weight is missing\n"
        "  expected: an array of shape (16, 24)\n"
        "  hint:     the nearest of the 21 given is 'model.layers.1.self_attn.kproj.weight'"
    )


def test_a_misshapen_weight_is_named_with_both_shapes():
    model = llama()
    given = random_weights(model, 0)
    given["model.layers.0.mlp.up_proj.weight"] = given["model.layers.0.mlp.up_proj.weight"].T
    with pytest.raises(InputError) as caught:
        read_weights(model, given)
    assert str(caught.value) == (
        "weights: model.layers.0.mlp.up_proj.weight: this weight has the wrong shape\n"
        "  given:    (24, 38)\n"
        "  expected: (38, 24)"
    )


@pytest.mark.parametrize("bad", ["text", object(), np.zeros((41, 24), dtype=complex), [[1, 2], [3]]])
def test_a_weight_that_is_not_of_numbers_is_refused(bad):
    model = llama()
    with pytest.raises(InputError, match=r"model\.embed_tokens\.weight: this weight is not of numbers"):
        read_weights(model, random_weights(model, 0) | {"model.embed_tokens.weight": bad})


def test_something_that_is_no_state_dict_is_refused():
    with pytest.raises(InputError, match="these are no weights"):
        read_weights(llama(), 7)


def test_what_only_a_framework_can_widen_is_asked_to():
    class Tensor:
        """As a bf16 tensor of torch: NumPy cannot take it before it is detached, on the CPU and a float."""

        def __init__(self, array):
            self.array = array

        def __array__(self, *args, **kwargs):
            raise TypeError("Got unsupported ScalarType BFloat16")

        def detach(self):
            return self

        cpu = detach

        def float(self):
            return self.array

    model = llama()
    given = random_weights(model, 0)
    read = read_weights(model, {name: Tensor(array) for name, array in given.items()})
    assert (read.tables[0] == given["model.embed_tokens.weight"]).all()


def test_weights_that_are_not_finite_are_taken():
    model = llama()
    given = random_weights(model, 0)
    given["model.norm.weight"][3] = np.inf
    assert np.isinf(read_weights(model, given).norm(None, "final_norm").gain[3])


def test_dtype_is_one_of_two():
    with pytest.raises(InputError, match="no such dtype"):
        read_weights(llama(), random_weights(llama(), 0), "float16")
    assert read_weights(llama(), random_weights(llama(), 0), "float64").tables[0].dtype == np.float64
