"""Finds and reads files: takes a preset's name, a path or a text of YAML or JSON, gives a plain dict."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pe_sim.errors import InputError, PeSimError, did_you_mean, printable


def load_mapping(path: Path) -> dict[str, Any]:
    """The top-level mapping of a `.json` file (read as JSON) or of any other file (read as YAML).

    Raises:
        InputError: the file cannot be read, is malformed (with line and column), repeats a key or is not a mapping.
    """
    return _require_mapping(load_value(path), str(path))


def load_value(path: Path) -> Any:
    """The content of a `.json` file (read as JSON) or of any other file (read as YAML), mapping or not.

    Raises:
        InputError: as `load_mapping` raises it, except for values that are no mapping.
    """
    text, source = read_text(path), str(path)
    if path.suffix.lower() == ".json":
        return parse_json_value(text, source)
    # Imported here: the model presets are JSON, and start-up time counts.
    from pe_sim.config.files.strict_yaml import parse_yaml_value

    return printable_tree(parse_yaml_value(text, source))


def printable_tree(value: Any) -> Any:
    """The value of a file with terminal control characters escaped in all its texts, which are shown to people."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable_tree(key): printable_tree(inner) for key, inner in value.items()}
    return list(map(printable_tree, value)) if isinstance(value, list) else value


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """The top-level mapping of a YAML text; `source` is what error messages call it.

    Raises:
        InputError: malformed text, a duplicate key, or no mapping at the top.
    """
    from pe_sim.config.files.strict_yaml import parse_yaml_value

    return _require_mapping(printable_tree(parse_yaml_value(text, source)), source)


def parse_json(text: str, source: str) -> dict[str, Any]:
    """The top-level mapping of a JSON text; `source` is what error messages call it.

    Raises:
        InputError: malformed text, a duplicate key, or no mapping at the top.
    """
    return _require_mapping(parse_json_value(text, source), source)


def parse_json_value(text: str, source: str) -> Any:
    """The value of a JSON text of any type; `source` is what error messages call it.

    NaN, Infinity and numbers beyond a double are read as in YAML; they are refused where numbers are checked.

    Raises:
        InputError: malformed text or a duplicate key.
    """
    try:
        return printable_tree(json.loads(text, object_pairs_hook=_unique_keys))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"malformed JSON at {where}: {error.msg}", source=source) from None
    except RecursionError:
        raise InputError("malformed JSON: nested too deeply", source=source) from None
    except ValueError as error:
        raise InputError(f"malformed JSON: {error}", source=source) from None


def _require_mapping(value: Any, source: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if value is None:
        raise InputError("the file is empty", source=source, expected="a mapping of names to values at the top level")
    raise InputError(
        "the top level is not a mapping",
        source=source,
        given=value,
        expected="a mapping of names to values at the top level",
    )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"duplicate key {key!r}")
        mapping[key] = value
    return mapping


# ---- Finds presets: takes a preset's name or a path, gives the path of an existing file.


PresetKind = Literal["models", "arrays", "systems", "situations", "machines"]

# Folder below the data root and the endings of the files in it, per kind.
_FOLDERS: Final[dict[str, str]] = {
    "models": "workloads/models",
    "arrays": "topologies",
    "systems": "topologies/systems",
    "situations": "workloads/situations",
    "machines": "topologies/machines",
}
_YAML: Final = (".yaml", ".yml")
_SUFFIXES: Final[dict[str, tuple[str, ...]]] = {
    "models": (".json",),
    "arrays": _YAML,
    "systems": _YAML,
    "situations": _YAML,
    "machines": _YAML,
}
SINGULAR: Final[dict[str, str]] = {kind: kind.removesuffix("s") for kind in _FOLDERS}
_MOST_BYTES: Final = 64 << 20  # the largest real files, profiles and indices of shards, have some MiB
_PACKAGE: Final = Path(__file__).resolve().parents[2]
# A wheel has the data inside the package, a source tree next to the package.
_DATA_ROOTS: Final = (_PACKAGE / "_presets", _PACKAGE.parent)
# A file's ending starts with a letter: `.yaml` is one, the `.1-405b` of `llama-3.1-405b` is not.
_FILE_ENDING: Final = re.compile(r"\.[A-Za-z][A-Za-z0-9]*$")


@cache
def preset_folder(kind: PresetKind) -> Path:
    """The folder with the presets of `kind`, in the installed wheel or in the source tree.

    Raises:
        PeSimError: the installation has no such folder.
    """
    for root in _DATA_ROOTS:
        folder = root / _FOLDERS[kind]
        if folder.is_dir():
            return folder
    raise PeSimError(f"the installation is incomplete: no folder {_FOLDERS[kind]} with the preset {kind}")


@cache
def preset_names(kind: PresetKind) -> tuple[str, ...]:
    """The names of all presets of `kind`, sorted."""
    return tuple(sorted(_preset_files(kind)))


def is_preset(kind: PresetKind, name_or_path: str | Path) -> bool:
    """Whether `name_or_path` is exactly the name of a preset."""
    return str(name_or_path) in _preset_files(kind)


def resolve(kind: PresetKind, name_or_path: str | Path) -> Path:
    """The file behind a preset's name or a path; a preset's name wins over a file of the same name.

    Raises:
        InputError: neither a preset nor an existing file, or a folder.
    """
    text = str(name_or_path)
    preset = _preset_files(kind).get(text)
    if preset is not None:
        return preset
    if text and os.path.isdir(text):
        raise _folder_error(text)
    # Not isfile(): a pipe such as the shell's <(...) is fine. exists() is False for impossible names.
    if text and os.path.exists(text):
        return Path(text)
    raise _missing_file_error(kind, text) if _looks_like_path(text) else _unknown_name_error(kind, text)


def read_text(path: Path, most_bytes: int = _MOST_BYTES) -> str:
    """The UTF-8 text of a file, without a byte order mark.

    Args:
        most_bytes: the largest size; a larger file is refused without reading all of it.

    Raises:
        InputError: no such file, a folder, too large, not readable, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except IsADirectoryError:
        raise _folder_error(str(path)) from None
    except FileNotFoundError:
        raise InputError("no such file", source=str(path)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"the file cannot be read: {reason}", source=str(path)) from None
    if len(data) > most_bytes:
        raise InputError(
            f"the file is larger than {most_bytes >> 20} MiB",
            source=str(path),
            expected="a text file of YAML or JSON; weights are given with --weights",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 text: byte 0x{data[error.start]:02x} at offset {error.start}",
            source=str(path),
            expected="a text file in UTF-8",
        ) from None


@cache
def _preset_files(kind: PresetKind) -> dict[str, Path]:
    return {path.stem: path for path in preset_folder(kind).iterdir() if path.suffix in _SUFFIXES[kind]}


def _looks_like_path(text: str) -> bool:
    return "/" in text or os.sep in text or _FILE_ENDING.search(text) is not None


def _folder_error(text: str) -> InputError:
    return InputError("this is a folder", source=text, expected="a file")


def _missing_file_error(kind: PresetKind, text: str) -> InputError:
    stem = Path(text).stem
    hint = f"the preset is called {stem!r}, without folder and ending" if is_preset(kind, stem) else None
    return InputError(
        "no such file", source=text, expected=f"a file or the name of a preset {SINGULAR[kind]}", hint=hint
    )


def _unknown_name_error(kind: PresetKind, text: str) -> InputError:
    noun = SINGULAR[kind]
    return InputError(
        f"unknown {noun}",
        given=text,
        expected=f"the name of a preset {noun} or the path of a file",
        hint=did_you_mean(text, preset_names(kind)),
    )
