"""Loads models: takes a preset's name, a path or a mapping, gives a frozen model; or one line about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from pe_sim.config.loading import load_mapping
from pe_sim.config.model import ModelConfig
from pe_sim.config.model_overrides import ModelOverrides, apply_overrides, read_overrides
from pe_sim.config.model_readers import read_model
from pe_sim.config.presets import is_preset, resolve
from pe_sim.errors import InputError, printable
from pe_sim.units import format_count

_NAMELESS_STEMS = ("config", "params")  # every published file is called so; the folder says which model it is


def load_model(
    name_or_path_or_dict: str | Path | Mapping[str, object],
    overrides: Mapping[str, object] | None = None,
    *,
    ignore_keys: Collection[str] = (),
) -> ModelConfig:
    """A model by a preset's name, from a config file (JSON or YAML), or from such a file's mapping.

    Args:
        name_or_path_or_dict: for instance "llama-2-7b", "my/config.json", or {"model_type": "llama", ...}.
        overrides: new values by the names of ModelConfig's fields, for instance {"max_position_embeddings": 32768}.
        ignore_keys: keys of the config to read it without, told as `unknown_keys`.

    Raises:
        InputError: there is no such preset or file, its dialect is unknown, or an entry or override is wrong.
    """
    changes = read_overrides(overrides or {})
    if isinstance(ignore_keys, str) or not all(isinstance(key, str) for key in ignore_keys):
        raise InputError("not a list of keys", path="ignore_keys", given=ignore_keys, expected="a list of names")
    model = _load(name_or_path_or_dict, changes, ignore_keys)
    return apply_overrides(model, changes) if overrides else model


def as_model(model: ModelConfig | str | Path | Mapping[str, object]) -> ModelConfig:
    """The model itself, or what `load_model` makes of it."""
    return model if isinstance(model, ModelConfig) else load_model(model)


def describe_model(model: ModelConfig) -> str:
    """One line: name, family, sizes, parameters; sizes are elements and tokens."""
    heads = f"{model.num_heads} heads"
    if model.num_kv_heads != model.num_heads:
        heads += f" on {model.num_kv_heads} kv heads"
    return (
        f"{model.name}: {model.family}, {format_count(model.num_parameters)} parameters, {model.num_layers} layers,"
        f" hidden {model.hidden_size}, {heads} of {model.head_dim}, ffn {model.ffn_size}, vocab {model.vocab_size},"
        f" context {model.max_position_embeddings}"
    )


def _load(given: object, changes: ModelOverrides, ignore_keys: Collection[str]) -> ModelConfig:
    vocab_size = changes.vocab_size if "vocab_size" in changes.model_fields_set else None
    if isinstance(given, Mapping):
        name = _name_of_mapping(given)
        return read_model(given, source="model config", name=name, vocab_size=vocab_size, ignore_keys=ignore_keys)
    if not isinstance(given, str | Path):
        raise InputError("not a model", given=given, expected="a preset's name, a path, or a config as a mapping")
    if is_preset("models", given) and not ignore_keys:
        model = _load_preset(str(given))
        return replace(model, rope_scaling=dict(model.rope_scaling))  # the cached one stays out of reach
    path = resolve("models", given)
    name = _name_of_path(path)
    return read_model(load_mapping(path), source=str(given), name=name, vocab_size=vocab_size, ignore_keys=ignore_keys)


@cache
def _load_preset(name: str) -> ModelConfig:
    return read_model(load_mapping(resolve("models", name)), source=f"preset {name}", name=name)


def _name_of_path(path: Path) -> str:
    stem = path.stem if path.suffix.lower() in (".json", ".yaml", ".yml") else path.name
    if stem.lower() in _NAMELESS_STEMS:
        return printable(path.absolute().parent.name or stem)
    return printable(stem)


def _name_of_mapping(raw: Mapping[str, object]) -> str:
    """The last part of `_name_or_path`, which may be a hub name or somebody's folder; else 'model'."""
    given = raw.get("_name_or_path")
    parts = [part for part in given.replace("\\", "/").split("/") if part] if isinstance(given, str) else []
    return printable(parts[-1]) if parts else "model"
