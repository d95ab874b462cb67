"""Reads files strictly: takes the path or text of a YAML or JSON file, gives a plain dict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pe_sim.config.presets import read_text
from pe_sim.errors import InputError, printable


def load_mapping(path: Path) -> dict[str, Any]:
    """The top-level mapping of a `.json` file (read as JSON) or of any other file (read as YAML).

    Raises:
        InputError: the file cannot be read, is malformed (with line and column), repeats a key or is not a mapping.
    """
    return _require_mapping(load_value(path), str(path))


def load_value(path: Path) -> Any:
    """What a `.json` file (read as JSON) or any other file (read as YAML) holds, a mapping or not.

    Raises:
        InputError: as `load_mapping`, but for the last.
    """
    text, source = read_text(path), str(path)
    if path.suffix.lower() == ".json":
        return parse_json_value(text, source)
    # Imported here: reading the model presets needs JSON alone, and start-up time counts.
    from pe_sim.config.strict_yaml import parse_yaml_value

    return printable_tree(parse_yaml_value(text, source))


def printable_tree(value: Any) -> Any:
    """A file's value, what steers a terminal escaped in every text of it: names and keys are shown to people."""
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
    from pe_sim.config.strict_yaml import parse_yaml_value

    return _require_mapping(printable_tree(parse_yaml_value(text, source)), source)


def parse_json(text: str, source: str) -> dict[str, Any]:
    """The top-level mapping of a JSON text; `source` is what error messages call it.

    Raises:
        InputError: malformed text, a duplicate key, or no mapping at the top.
    """
    return _require_mapping(parse_json_value(text, source), source)


def parse_json_value(text: str, source: str) -> Any:
    """The value of a JSON text, whatever it is; `source` is what error messages call it.

    NaN, Infinity and numbers beyond a double are read, as YAML reads them: what takes a number refuses them.

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
