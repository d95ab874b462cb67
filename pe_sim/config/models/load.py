"""Loads models: takes a preset, a path or a mapping of any known dialect, gives a frozen model, or a line on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Protocol

from pydantic import Field

from pe_sim.config.files.foreign import Dialect, check_keys, detect
from pe_sim.config.files.loading import is_preset, load_mapping, resolve
from pe_sim.config.files.schema import Section, Text, validate
from pe_sim.config.models.galvatron import (
    is_galvatron_bert,
    is_galvatron_gpt,
    is_galvatron_llama,
    is_galvatron_yaml,
    read_galvatron_bert,
    read_galvatron_gpt,
    read_galvatron_llama,
    read_galvatron_yaml,
)
from pe_sim.config.models.hetu import is_hetu, read_hetu
from pe_sim.config.models.hf import is_hf, read_hf
from pe_sim.config.models.meta import is_meta, read_meta
from pe_sim.config.models.model import ModelConfig, check_model
from pe_sim.config.models.overrides import ModelOverrides, apply_overrides, read_overrides
from pe_sim.errors import InputError, did_you_mean, printable, told_of
from pe_sim.registry import Registry
from pe_sim.units import format_count

_NAMELESS_STEMS = ("config", "params")  # names of all published files; the folder says which model it is


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
        ignore_keys: keys of the config to ignore, which are reported as `unknown_keys`.

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
    """One line: name, family, number of parameters, and sizes in elements and tokens."""
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
        with told_of("model config"):
            return read_model(given, _name_of_mapping(given), vocab_size, ignore_keys)
    if not isinstance(given, str | Path):
        raise InputError("not a model", given=given, expected="a preset's name, a path, or a config as a mapping")
    if is_preset("models", given) and not ignore_keys:
        model = _load_preset(str(given))
        return replace(model, rope_scaling=dict(model.rope_scaling))  # the cached one stays out of reach
    path = resolve("models", given)
    raw = load_mapping(path)
    with told_of(str(given)):
        return read_model(raw, _name_of_path(path), vocab_size, ignore_keys)


@cache
def _load_preset(name: str) -> ModelConfig:
    with told_of(f"preset {name}"):
        return read_model(load_mapping(resolve("models", name)), name)


def _name_of_path(path: Path) -> str:
    stem = path.stem if path.suffix.lower() in (".json", ".yaml", ".yml") else path.name
    if stem.lower() in _NAMELESS_STEMS:
        return printable(path.absolute().parent.name or stem)
    return printable(stem)


def _name_of_mapping(raw: Mapping[str, object]) -> str:
    """The last part of `_name_or_path` (a hub name or a folder); "model" if there is none."""
    given = raw.get("_name_or_path")
    parts = [part for part in given.replace("\\", "/").split("/") if part] if isinstance(given, str) else []
    return printable(parts[-1]) if parts else "model"


# ---- Dialects of model files: takes a mapping, finds its dialect by its keys, gives a checked model.


OWN_KEY: Final = "_pe_sim"


class Reader(Protocol):
    """A reader of one dialect; `vocab_size` is the caller's, for files that leave it open."""

    def __call__(self, raw: Mapping[str, object], name: str, vocab_size: int | None) -> ModelConfig:
        """The model that the mapping describes; raises InputError."""


def _read_hf(raw: Mapping[str, object], name: str, vocab_size: int | None) -> ModelConfig:
    return read_hf(raw, name)


# The first dialect that recognises the keys reads them, so those with the most specific keys come first.
_BUILT_IN: Final[tuple[Dialect[Reader], ...]] = (
    Dialect("Hetu LlamaConfig", "ffn_hidden_size beside n_embd or Hugging Face names", is_hetu, read_hetu),
    Dialect("Hugging Face config.json", "model_type or architectures", is_hf, _read_hf),
    Dialect(
        "Galvatron model_configs",
        "num_query_groups, gated_linear_unit or num_layers",
        is_galvatron_yaml,
        read_galvatron_yaml,
    ),
    Dialect(
        "Galvatron meta_configs",
        "dim and n_layers beside n_positions or ffn_dim",
        is_galvatron_llama,
        read_galvatron_llama,
    ),
    Dialect("Meta params.json", "dim and n_layers", is_meta, read_meta),
    Dialect("Galvatron meta_configs, gpt", "n_embd and n_layer", is_galvatron_gpt, read_galvatron_gpt),
    Dialect(
        "Galvatron meta_configs, bert",
        "hidden_size, num_hidden_layers and num_attention_heads",
        is_galvatron_bert,
        read_galvatron_bert,
    ),
)
DIALECTS: Registry[Dialect[Reader]] = Registry(
    "pe_sim.model_dialects", {each.name: each for each in _BUILT_IN}, ("marks", "recognises", "read")
)


class OwnEntry(Section):
    """The schema of what pe-sim's presets add to a config: the parameter count it must give, and its source."""

    parameters: Annotated[int, Field(gt=0)]
    source: Text


def detect_dialect(raw: Mapping[str, object]) -> Dialect[Reader]:
    """The dialect that a model's mapping is written in.

    Raises:
        InputError: no dialect recognises the keys.
    """
    return detect(DIALECTS, raw, "model config")


def read_model(
    raw: Mapping[str, object],
    name: str,
    vocab_size: int | None = None,
    ignore_keys: Collection[str] = (),
) -> ModelConfig:
    """The checked model that a mapping of any known dialect describes.

    Args:
        raw: the mapping of the file.
        name: the name for the model.
        vocab_size: the vocabulary size to use if the file leaves it open.
        ignore_keys: keys of the mapping to ignore.

    Raises:
        InputError: an unknown dialect, a key to ignore that is not there, a bad entry, or sizes that do not agree, also
            with a stated parameter count.
    """
    entries = dict(raw)
    check_keys(entries)
    own = entries.pop(OWN_KEY, None)
    for key in ignore_keys:
        if key not in entries:
            raise InputError("there is no such key to ignore", path=key, hint=did_you_mean(key, map(str, raw)))
    entries = {key: value for key, value in entries.items() if key not in ignore_keys}
    try:
        model = check_model(detect_dialect(entries).read(entries, name, vocab_size))
    except InputError as error:
        if error.problem != "unknown key" or error.path not in entries:
            raise
        way_out = f"--ignore-key {error.path} (in Python load_model(..., ignore_keys=[...])) reads the file without it"
        hint = "; ".join(part for part in (error.hint, way_out) if part)
        raise InputError(error.problem, path=error.path, given=error.given, hint=hint) from None
    dropped = tuple(dict.fromkeys(ignore_keys))
    model = replace(model, ignored_keys=model.ignored_keys + dropped, unknown_keys=model.unknown_keys + dropped)
    if own is not None:
        _check_own_entry(own, model)
    return model


def _check_own_entry(own: object, model: ModelConfig) -> None:
    if not isinstance(own, Mapping):
        raise InputError("not a mapping", path=OWN_KEY, given=own, expected="a mapping")
    stated = validate(OwnEntry, own, None, prefix=f"{OWN_KEY}.").parameters
    if stated != model.num_parameters:
        raise InputError(
            f"the sizes give {model.num_parameters:,} parameters, not {stated:,}",
            path=f"{OWN_KEY}.parameters",
            given=stated,
        )
