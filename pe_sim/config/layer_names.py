"""Names of linear layers in other systems: takes a name, gives the operators it is here."""

from __future__ import annotations

from typing import Final

from pe_sim.errors import InputError, did_you_mean

# Names as Hugging Face's, Megatron's and Meta's modules have them, by their last parts.
_OPERATORS: Final[dict[str, tuple[str, ...]]] = {
    "q_proj": ("q",),
    "query": ("q",),
    "wq": ("q",),
    "k_proj": ("k",),
    "key": ("k",),
    "wk": ("k",),
    "v_proj": ("v",),
    "value": ("v",),
    "wv": ("v",),
    "qkv": ("q", "k", "v"),
    "qkv_proj": ("q", "k", "v"),
    "qkv_dense": ("q", "k", "v"),
    "query_key_value": ("q", "k", "v"),
    "c_attn": ("q", "k", "v"),
    "o_proj": ("o",),
    "out_proj": ("o",),
    "wo": ("o",),
    "dense": ("o",),
    "attn.c_proj": ("o",),
    "attention.output.dense": ("o",),
    "gate_proj": ("gate",),
    "w1": ("gate",),
    "up_proj": ("up",),
    "w3": ("up",),
    "c_fc": ("up",),
    "fc1": ("up",),
    "intermediate.dense": ("up",),
    "gate_up_proj": ("gate", "up"),
    "dense_h_to_4h": ("gate", "up"),
    "down_proj": ("down",),
    "w2": ("down",),
    "fc2": ("down",),
    "mlp.c_proj": ("down",),
    "dense_4h_to_h": ("down",),
    # Without what stands before, these are the last matrix of attention and of the FFN.
    "c_proj": ("o", "down"),
    "output.dense": ("o", "down"),
}


def operators_of(name: object, path: str, source: str) -> tuple[str, ...]:
    """The operators that a layer of this name is; of a dotted name the longest known ending counts.

    Raises:
        InputError: no text, or no known name.
    """
    if not isinstance(name, str):
        raise InputError("not the name of a layer", source=source, path=path, given=name, expected="a text")
    parts = name.split(".")
    for begin in range(len(parts)):
        operators = _OPERATORS.get(".".join(parts[begin:]))
        if operators is not None:
            return operators
    raise InputError(
        "unknown linear layer",
        source=source,
        path=path,
        given=name,
        expected="a name of a projection, for instance q_proj or mlp.c_proj",
        hint=did_you_mean(parts[-1], _OPERATORS),
    )
