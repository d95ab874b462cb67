"""What must hold between the sizes of a model: takes a resolved model, gives it back or says which two disagree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pe_sim.config.model import ModelConfig
from pe_sim.errors import InputError

ACTIVATIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "llama": ("silu",),
    "gpt2": ("gelu", "gelu_tanh"),
    "bert": ("gelu", "gelu_tanh"),
}


def derive_head_dim(hidden_size: int, num_heads: int, source: str | None) -> int:
    """The width of a head when nothing states it: hidden_size / num_heads.

    Raises:
        InputError: the heads do not divide the hidden size.
    """
    if hidden_size % num_heads:
        raise InputError(
            f"hidden size {hidden_size} is not a multiple of the {num_heads} attention heads",
            source=source,
            hint="change one of the two, or state head_dim where the family has it",
        )
    return hidden_size // num_heads


def check_model(model: ModelConfig, source: str | None) -> ModelConfig:
    """`model` itself, when its sizes agree with each other and with its family.

    Raises:
        InputError: heads that cannot share kv heads, or a head width or an activation the family cannot have.
    """
    _check_heads(model, source)
    if model.position == "rope" and model.head_dim % 2:
        problem = f"head_dim {model.head_dim} is odd, and rotary positions turn pairs of elements"
        raise InputError(problem, source=source)
    known = ACTIVATIONS[model.family]
    if model.activation not in known:
        raise InputError(
            f"{model.family} has no activation {model.activation!r}", source=source, expected=" or ".join(known)
        )
    return model


def _check_heads(model: ModelConfig, source: str | None) -> None:
    if model.num_heads % model.num_kv_heads:
        raise InputError(
            f"{model.num_heads} attention heads cannot share {model.num_kv_heads} kv heads evenly",
            source=source,
            expected="a number of attention heads that is a multiple of the kv heads",
        )
    if model.family == "llama":
        return
    if model.num_kv_heads != model.num_heads:
        raise InputError(
            f"{model.family} has as many kv heads as attention heads, not {model.num_kv_heads} and {model.num_heads}",
            source=source,
        )
    if model.q_size != model.hidden_size:
        raise InputError(
            f"{model.family} needs num_heads * head_dim = hidden_size,"
            f" but {model.num_heads} * {model.head_dim} is not {model.hidden_size}",
            source=source,
        )
