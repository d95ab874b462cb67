"""Rotary position parameters in all the forms they have been written in."""

import pytest

from pe_sim.config.models.load import load_model
from pe_sim.errors import InputError

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LINEAR = {"rope_type": "linear", "factor": 2.0}


def rope(**entries):
    model = load_model({**LLAMA, **entries})
    return model.rope_theta, model.rope_scaling


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, (10000.0, {})),
        ({"rope_theta": 500000}, (500000.0, {})),
        ({"rope_scaling": None}, (10000.0, {})),
        ({"rope_scaling": {"type": "default"}}, (10000.0, {})),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, (10000.0, LINEAR)),
        ({"rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 2.0}}, (10000.0, LINEAR)),
        ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, (1e6, {})),
        ({"rope_parameters": {"rope_theta": 1e6}}, (1e6, {})),
        ({"rope_parameters": {"rope_theta": 1e6}, "rope_theta": 1e6}, (1e6, {})),
        ({"rope_parameters": {"partial_rotary_factor": 1.0, "rope_theta": 1e6}}, (1e6, {})),
        ({"rope_scaling": {"rope_type": "llama3", **LLAMA3}}, (10000.0, {"rope_type": "llama3", **LLAMA3})),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
            (5e5, {"rope_type": "llama3", **LLAMA3}),
        ),
        ({"rope_parameters": {**LINEAR, "rope_theta": 1e6}, "rope_scaling": LINEAR}, (1e6, LINEAR)),
    ],
)
def test_forms(entries, expected):
    assert rope(**entries) == expected


@pytest.mark.parametrize("kind", ["dynamic", "yarn", "longrope", "su", "mrope", "nonsense"])
@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_refused_by_name(kind, key):
    with pytest.raises(InputError) as caught:
        rope(rope_scaling={key: kind, "factor": 2.0})
    assert str(caught.value) == (
        f"model config: rope_scaling.rope_type: rotary scaling {kind!r} is not supported\n"
        f"  given:    {kind!r}\n"
        "  expected: default, linear or llama3\n"
        "  hint:     the numeric executor could not honour it, so its traffic and times would describe another model"
    )


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"rope_scaling": {"factor": 2.0}}, "rope_scaling.rope_type: missing"),
        ({"rope_scaling": {"type": 3}}, "rope_scaling.type: not text"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor: missing"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "rope_scaling.factor: not a number"),
        ({"rope_scaling": {"type": "linear", "factor": True}}, "rope_scaling.factor: not a number"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "rope_scaling.factor: too small"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "fcator": 1}}, "rope_scaling.fcator: unknown key"),
        ({"rope_scaling": {"type": "linear", "rope_type": "llama3"}}, "'llama3' and type 'linear' contradict"),
        ({"rope_scaling": {"type": "llama3", "factor": 8.0}}, "rope_scaling.low_freq_factor: missing"),
        ({"rope_scaling": {"type": "llama3", **LLAMA3, "low_freq_factor": 4.0}}, "low_freq_factor 4 is not below"),
        ({"rope_scaling": [1]}, "rope_scaling: not a mapping"),
        ({"rope_scaling": "linear"}, "rope_scaling: not a mapping"),
        ({"rope_scaling": {"type": "default", "mrope_section": [1]}}, "rope_scaling.mrope_section: not supported"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "rope_parameters.full_attention: not supported"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "only a part of each head is rotated"),
        ({"rope_parameters": {"rope_theta": "1e6"}}, "rope_parameters.rope_theta: not a number"),
        ({"rope_parameters": {"rope_theta": 1e6}, "rope_theta": 1e4}, "rope_theta is given twice, as 10000 and 1e"),
        ({"rope_parameters": LINEAR, "rope_scaling": {**LINEAR, "factor": 4.0}}, "contradict each other"),
        ({"rope_theta": 0}, "rope_theta: too small"),
        ({"rope_theta": float("nan")}, "rope_theta: not a finite number"),
        ({"rope_theta": float("inf")}, "rope_theta: not a finite number"),
        ({"rope_theta": True}, "rope_theta: not a number"),
    ],
)
def test_bad_entries(entries, message):
    with pytest.raises(InputError) as caught:
        rope(**entries)
    assert message in str(caught.value)
