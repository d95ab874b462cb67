"""Changes to a loaded model: takes a model and new values by field name, gives the changed model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from pe_sim.config.files.schema import Positive, Section, Size, Text, validate
from pe_sim.config.models.model import ModelConfig, check_model, derive_head_dim
from pe_sim.config.models.rope import parse_rope
from pe_sim.errors import InputError, told_of

_PREFIX: Final = "model."
_FOLLOWS_FAMILY: Final = (
    "family",
    "norm",
    "gated_ffn",
    "position",
    "has_lm_head",
    "left_out",
    "ignored_keys",
    "unknown_keys",
)
# Fields that only some families have; in the others they are fixed.
_ONLY_IN: Final[Mapping[str, tuple[str, ...]]] = {
    "attention_bias": ("llama",),
    "qkv_bias": ("llama",),
    "mlp_bias": ("llama",),
    "rope_theta": ("llama",),
    "rope_scaling": ("llama",),
    "type_vocab_size": ("bert",),
    "tie_word_embeddings": ("llama", "gpt2"),
}


class ModelOverrides(Section):
    """The schema of fields that a user may change; defaults are placeholders, as only given fields are used."""

    name: Text = "-"
    num_layers: Size = 1
    hidden_size: Size = 1
    num_heads: Size = 1
    num_kv_heads: Size = 1
    head_dim: Size = 1
    ffn_size: Size = 1
    vocab_size: Size = 1
    max_position_embeddings: Size = 1
    norm_eps: Positive = 1.0
    activation: Text = "-"
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    qkv_bias: bool = False
    mlp_bias: bool = False
    rope_theta: Positive = 1.0
    rope_scaling: dict[str, object] | None = None
    type_vocab_size: Size = 1


def read_overrides(overrides: Mapping[str, object]) -> ModelOverrides:
    """The overrides with their names and types checked.

    Raises:
        InputError: an unknown field, one that follows from the family, or a value of a wrong type or range.
    """
    for name in _FOLLOWS_FAMILY:
        if name in overrides:
            raise InputError(
                "this field follows from the model's family or class and cannot be set",
                path=_PREFIX + name,
                given=overrides[name],
            )
    for name in overrides:
        if not isinstance(name, str):
            raise InputError("not the name of a field", path="model", given=name)
    return validate(ModelOverrides, overrides, None, prefix=_PREFIX)


def apply_overrides(model: ModelConfig, overrides: ModelOverrides) -> ModelConfig:
    """`model` with the given fields changed, and checked again.

    Derived fields follow unless they are given too: kv heads follow the attention heads of a model without grouped
    heads, and the width of a head follows hidden_size / num_heads if it was that. The FFN keeps its width.

    Raises:
        InputError: a field the family does not have, or sizes that no longer agree.
    """
    changes: dict[str, Any] = overrides.model_dump(exclude_unset=True)
    for name in changes:
        _check_family(model, name, changes[name])
    if "rope_scaling" in changes:
        changes.update(_scaling_changes(overrides.rope_scaling, changes))
    changed = replace(model, **{**_derived_changes(model, changes), **changes})
    with told_of("overrides"):
        return check_model(changed)


def _check_family(model: ModelConfig, name: str, value: object) -> None:
    families = _ONLY_IN.get(name)
    if families is not None and model.family not in families:
        raise InputError(
            f"this field is fixed in family {model.family}; only {' and '.join(families)} can change it",
            path=_PREFIX + name,
            given=value,
        )


def _scaling_changes(table: Mapping[str, object] | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changed scaling in its normal form, and the base if the mapping holds one and nothing else sets it."""
    theta, scaling = parse_rope(table, path=_PREFIX + "rope_scaling", default_type=None)
    result: dict[str, Any] = {"rope_scaling": scaling}
    if theta is not None:
        result["rope_theta"] = changes.get("rope_theta", theta)
    return result


def _derived_changes(model: ModelConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    heads = changes.get("num_heads", model.num_heads)
    hidden = changes.get("hidden_size", model.hidden_size)
    derived: dict[str, Any] = {}
    if "num_kv_heads" not in changes and model.num_kv_heads == model.num_heads:
        derived["num_kv_heads"] = heads
    if "head_dim" not in changes and model.q_size == model.hidden_size:
        with told_of("overrides"):
            derived["head_dim"] = derive_head_dim(hidden, heads)
    return derived
