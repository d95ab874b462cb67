"""The dialects a model file may speak: takes a mapping, finds its dialect by its keys, gives a checked model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Annotated, Final, Protocol

from pydantic import Field

from pe_sim.config.dialects import Dialect, check_keys, detect
from pe_sim.config.galvatron import (
    is_galvatron_bert,
    is_galvatron_gpt,
    is_galvatron_llama,
    read_galvatron_bert,
    read_galvatron_gpt,
    read_galvatron_llama,
)
from pe_sim.config.galvatron_yaml import is_galvatron_yaml, read_galvatron_yaml
from pe_sim.config.hetu import is_hetu, read_hetu
from pe_sim.config.hf import is_hf, read_hf
from pe_sim.config.meta import is_meta, read_meta
from pe_sim.config.model import ModelConfig
from pe_sim.config.model_checks import check_model
from pe_sim.config.model_fields import StrictSchema, Text, validate
from pe_sim.errors import InputError, did_you_mean

OWN_KEY: Final = "_pe_sim"


class Reader(Protocol):
    """Turns a mapping of one dialect into a model; `vocab_size` is the caller's, for files that leave it open."""

    def __call__(self, raw: Mapping[str, object], source: str, name: str, vocab_size: int | None) -> ModelConfig:
        """The model; raises InputError."""


def _read_hf(raw: Mapping[str, object], source: str, name: str, vocab_size: int | None) -> ModelConfig:
    return read_hf(raw, source, name)


# The first dialect that recognises the keys reads them, so the one with the most telling marks comes first.
DIALECTS: Final[tuple[Dialect[Reader], ...]] = (
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


class OwnEntry(StrictSchema):
    """What our presets add to a config: the parameter count it must give, and where its numbers come from."""

    parameters: Annotated[int, Field(strict=True, gt=0)]
    source: Text


def detect_dialect(raw: Mapping[str, object], source: str) -> Dialect[Reader]:
    """The dialect of a model file.

    Raises:
        InputError: no dialect recognises the keys.
    """
    return detect(DIALECTS, raw, source, "model config")


def read_model(
    raw: Mapping[str, object],
    *,
    source: str,
    name: str,
    vocab_size: int | None = None,
    ignore_keys: Collection[str] = (),
) -> ModelConfig:
    """The checked model a mapping of any known dialect describes.

    Args:
        raw: the mapping of the file.
        source: what errors call it.
        name: the name the model gets.
        vocab_size: the caller's vocabulary size, used when the file leaves it open.
        ignore_keys: keys to read the mapping without.

    Raises:
        InputError: an unknown dialect, a key to ignore that is not there, a bad entry, or sizes that do not agree, also
            with a stated parameter count.
    """
    entries = dict(raw)
    check_keys(entries, source)
    own = entries.pop(OWN_KEY, None)
    for key in ignore_keys:
        if key not in entries:
            raise InputError(
                "there is no such key to ignore", source=source, path=key, hint=did_you_mean(key, map(str, raw))
            )
    entries = {key: value for key, value in entries.items() if key not in ignore_keys}
    try:
        model = check_model(detect_dialect(entries, source).read(entries, source, name, vocab_size), source)
    except InputError as error:
        if error.problem != "unknown key" or error.path not in entries:
            raise
        way_out = f"--ignore-key {error.path} (in Python load_model(..., ignore_keys=[...])) reads the file without it"
        hint = "; ".join(part for part in (error.hint, way_out) if part)
        raise InputError(error.problem, source=source, path=error.path, given=error.given, hint=hint) from None
    dropped = tuple(dict.fromkeys(ignore_keys))
    model = replace(model, ignored_keys=model.ignored_keys + dropped, unknown_keys=model.unknown_keys + dropped)
    if own is not None:
        _check_own_entry(own, model, source)
    return model


def _check_own_entry(own: object, model: ModelConfig, source: str) -> None:
    if not isinstance(own, Mapping):
        raise InputError("not a mapping", source=source, path=OWN_KEY, given=own, expected="a mapping")
    stated = validate(OwnEntry, own, source=source, prefix=f"{OWN_KEY}.").parameters
    if stated != model.num_parameters:
        raise InputError(
            f"the sizes give {model.num_parameters:,} parameters, not {stated:,}",
            source=source,
            path=f"{OWN_KEY}.parameters",
            given=stated,
        )
