"""Hetu's `LLaMAConfig` and `LlamaConfig` as JSON of their keyword arguments: takes the mapping, gives a model.

Defaults are those of the documented signatures. Hetu's FFN is always gated with SiLU (`swiglu`), whatever
`activation_function` says, and its LM head stands apart from the token table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Final

from pydantic import Field

from pe_sim.config.files.foreign import KeyRules, Refusal, read_entries, sort_keys
from pe_sim.config.files.schema import Positive, Section, Size
from pe_sim.config.models.hf import GPT2_KEYS, read_hf, rename
from pe_sim.config.models.meta import plain_llama
from pe_sim.config.models.model import ModelConfig, derive_head_dim
from pe_sim.errors import InputError

DEFAULT_POSITIONS: Final = 2048  # of LlamaConfig; LLaMAConfig states none
_QUANTISED: Final = Refusal(
    "quantised weights; quantisation is the array's `dtypes.weight`",
    (None, "fp32", "fp16", "bf16", "float32", "float16", "bfloat16"),
)
_HETU_ONLY: Final = ("ffn_hidden_size", "use_flash_attn", "dqtype", "lora_dtype", "gated_linear_unit")
_IGNORED_HERE: Final = frozenset({"use_flash_attn", "lora_dtype"})
_DOCUMENTED_KEYS: Final = KeyRules(
    ignored=GPT2_KEYS.ignored | _IGNORED_HERE | {"activation_function"},
    ignored_prefixes=GPT2_KEYS.ignored_prefixes,
    refused={**GPT2_KEYS.refused, "dqtype": _QUANTISED},
    others=GPT2_KEYS.others,
)
_CURRENT_ONLY_KEYS: Final = KeyRules(
    ignored=_IGNORED_HERE,
    refused={"dqtype": _QUANTISED, "gated_linear_unit": Refusal("an FFN without a gate", (True,))},
)
# Defaults of the documented signature of LlamaConfig; intermediate_size is filled in separately.
_CURRENT_DEFAULTS: Final[Mapping[str, object]] = {
    "vocab_size": 50257,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-6,
}
_CURRENT_FFN: Final = 11008
_SWIGLU: Final = ("fast-swiglu", "swiglu")
_ALIASES: Final = {"hidden_size": "n_embd"}  # of the documented form

FfnSize = Annotated[int, Field(ge=-1, le=2**31)]


class HetuLlama(Section):
    """The schema of the documented LLaMAConfig's arguments."""

    vocab_size: Size = Field(50257, description="rows of the token table")
    n_embd: Size = Field(768, description="width of a row")
    ffn_hidden_size: FfnSize = Field(-1, description="width of the FFN; -1: n_inner, or 4 * n_embd without it")
    n_layer: Size = Field(12, description="blocks")
    n_head: Size = Field(12, description="attention heads")
    n_inner: Size | None = Field(None, description="width of the FFN where ffn_hidden_size leaves it open")
    n_positions: Size = Field(DEFAULT_POSITIONS, description="longest context")
    layer_norm_epsilon: Positive = Field(1e-5, description="epsilon of the RMS norms")


def is_hetu(raw: Mapping[str, object]) -> bool:
    """Whether the mapping has the keys by which either form is known."""
    if raw.get("model_type", "llama") != "llama":
        return False
    return _is_documented(raw) or _is_current(raw)


def read_hetu(raw: Mapping[str, object], name: str, vocab_size: int | None = None) -> ModelConfig:
    """The model that the keyword arguments describe; missing ones have their documented defaults.

    Args:
        raw: the mapping of the file.
        name: the name of the model.
        vocab_size: unused; the arguments always have one.

    Raises:
        InputError: a wrong or unknown entry, widths of the FFN that disagree, or a feature that is not supported.
    """
    return _read_documented(raw, name) if _is_documented(raw) else _read_current(raw, name)


def _is_documented(raw: Mapping[str, object]) -> bool:
    return "ffn_hidden_size" in raw and ("n_embd" in raw or "n_layer" in raw)


def _is_current(raw: Mapping[str, object]) -> bool:
    named = "hidden_size" in raw and "num_hidden_layers" in raw
    return named and (any(key in raw for key in _HETU_ONLY) or raw.get("hidden_act") in _SWIGLU)


def _read_documented(raw: Mapping[str, object], name: str) -> ModelConfig:
    entries = rename({key: value for key, value in raw.items() if key != "model_type"}, _ALIASES)
    config, ignored = read_entries(HetuLlama, entries, _DOCUMENTED_KEYS)
    return plain_llama(
        name=name,
        num_layers=config.n_layer,
        hidden_size=config.n_embd,
        num_heads=config.n_head,
        num_kv_heads=None,
        head_dim=derive_head_dim(config.n_embd, config.n_head),
        ffn_size=_documented_ffn(config),
        vocab_size=config.vocab_size,
        max_position_embeddings=config.n_positions,
        norm_eps=config.layer_norm_epsilon,
        ignored_keys=ignored,
    )


def _documented_ffn(config: HetuLlama) -> int:
    """The width of the FFN; if it is -1, n_inner, or without that 4 * n_embd."""
    size = config.ffn_hidden_size
    if size == 0:
        raise _no_width()
    if size == -1:
        return config.n_inner or 4 * config.n_embd
    if config.n_inner not in (None, size):
        raise _disagree("n_inner", config.n_inner, size)
    return size


def _read_current(raw: Mapping[str, object], name: str) -> ModelConfig:
    known = [key for key in raw if key not in (*_CURRENT_ONLY_KEYS.refused, *_CURRENT_ONLY_KEYS.ignored)]
    entries, ignored = sort_keys(raw, known, _CURRENT_ONLY_KEYS)
    if entries.get("hidden_act") in _SWIGLU:
        entries["hidden_act"] = "silu"  # what the gate goes through
    entries = {**_CURRENT_DEFAULTS, **entries}
    _settle_current_ffn(entries)
    model = read_hf({**entries, "model_type": "llama"}, name)
    return replace(model, ignored_keys=model.ignored_keys + ignored)


def _settle_current_ffn(entries: dict[str, object]) -> None:
    """Replaces the FFN's width by an entry under its Hugging Face name alone."""
    stated = "ffn_hidden_size" in entries
    size = entries.pop("ffn_hidden_size", -1)
    if not stated:
        entries.setdefault("intermediate_size", _CURRENT_FFN)
        return
    if isinstance(size, bool) or not isinstance(size, int):
        problem, expected = "not a whole number", "a whole number, or -1"
        raise InputError(problem, path="ffn_hidden_size", given=size, expected=expected)
    if size == 0 or size < -1:
        raise _no_width(size)
    hidden = entries["hidden_size"]
    if size == -1:
        entries.setdefault("intermediate_size", 4 * hidden if isinstance(hidden, int) else 0)
    elif entries.setdefault("intermediate_size", size) != size:
        raise _disagree("intermediate_size", entries["intermediate_size"], size)


def _no_width(given: int = 0) -> InputError:
    return InputError("too small", path="ffn_hidden_size", given=given, expected="more than 0, or -1 to derive it")


def _disagree(key: str, given: object, size: int) -> InputError:
    return InputError(
        f"{key} and ffn_hidden_size are both the width of the FFN and disagree",
        path=key,
        given=given,
        expected=f"{size}, or no such key",
    )
