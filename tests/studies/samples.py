"""What the tests of the studies share: a small model, and sweeps over it."""

TINY = {
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
BASE = {"model": TINY, "array": "bus-tree-64", "workflow": "megatron", "context": 16, "num_pes": 4}


def sweep_of(grid, **base):
    """A sweep of the small model."""
    return {"base": {**BASE, **base}, "grid": grid}
