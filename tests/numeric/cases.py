"""What the numeric tests share: tiny models of every family, their weights and tokens, and one step proven."""

from functools import cache

import numpy as np

from pe_sim.config.models.load import load_model
from pe_sim.engine.event.run import run_event
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.numeric.proof import verify_placed
from pe_sim.numeric.state_dict import random_weights, read_weights
from pe_sim.schedule.lowering import lower


def llama(**changes):
    config = {
        "model_type": "llama",
        "hidden_size": 24,
        "intermediate_size": 38,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": 41,
        "max_position_embeddings": 64,
    }
    return load_model(config | changes)


def gpt2(**changes):
    config = {
        "model_type": "gpt2",
        "n_embd": 24,
        "n_layer": 2,
        "n_head": 4,
        "vocab_size": 41,
        "n_positions": 64,
        "activation_function": "gelu_new",
    }
    return load_model(config | changes)


def bert(**changes):
    config = {
        "model_type": "bert",
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 38,
        "vocab_size": 41,
        "max_position_embeddings": 64,
        "hidden_act": "gelu",
    }
    return load_model(config | changes)


FAMILIES = {"llama": llama, "gpt2": gpt2, "bert": bert}


@cache
def weights_of(family, seed=1):
    """Random weights of the family's tiny model."""
    model = FAMILIES[family]()
    return read_weights(model, random_weights(model, seed))


def tokens_of(model, step, seed=0):
    """Random ids, one array per sequence."""
    random = np.random.default_rng(seed)
    return [random.integers(0, model.vocab_size, span.total_len) for span in step.sequences]


def timed_traffic(placed):
    """The traffic the engine counts."""
    return run_event(lower(placed)).traffic


def counts(traffic):
    """{tag: (messages, bytes)}."""
    return {tag: (use.messages, use.bytes) for tag, use in traffic.items()}


def prove(model, array, step, workflow, weights=None, tokens=None, **options):
    """The verdict on one step, traffic included."""
    workflow = WORKFLOWS[workflow] if isinstance(workflow, str) else workflow
    placed = place(model, array, step, workflow)
    weights = random_weights(model, 1) if weights is None else weights
    tokens = tokens_of(model, step) if tokens is None else tokens
    return verify_placed(placed, model, weights, tokens, traffic=timed_traffic(placed), **options)
