"""Values set by dotted path: takes a file's raw mapping and `--set` values, gives a changed copy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pe_sim.errors import InputError, did_you_mean

_FORM = "dotted.path=value, for instance num_pes=64"
_PLAIN = (
    int,
    str,
    float,
    bool,
)  # nearly all values; an isinstance check with an abstract class takes ten times as long


def parse_override(text: str) -> tuple[str, object]:
    """The dotted path and the value of one `--set` argument; the value is a strict YAML scalar, list or mapping.

    Raises:
        InputError: no `=`, no path, no value, or a value that is not YAML.
    """
    path, equals, value_text = text.partition("=")
    path = path.strip()
    if not equals or not path or not all(path.split(".")):
        raise InputError("not a path with a value", source="--set", given=text, expected=_FORM)
    if not value_text.strip():
        raise InputError("no value after the =", source=f"--set {path}", expected=_FORM)
    # Imported here: a command line without --set does not need YAML for it.
    from pe_sim.config.files.strict_yaml import parse_yaml_value

    return path, parse_yaml_value(value_text, f"--set {path}")


def apply_overrides(
    raw: Mapping[str, Any],
    overrides: Mapping[str, object],
    known_paths: Collection[str],
    scalar_keys: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A copy of `raw` with the overrides applied in order; their values are checked later, with the file.

    Args:
        raw: a file's mapping; not changed.
        overrides: new values by dotted path; a section can only be replaced by a mapping.
        known_paths: the dotted paths of all values a file can hold, optional ones included.
        scalar_keys: by path of a section that may be written as a scalar, the key that the scalar stands for.

    Raises:
        InputError: a path is unknown, or a section is set to something that is no mapping.
    """
    result: dict[str, Any] = _copy(raw)
    for path, value in overrides.items():
        source = f"--set {path}"
        if path not in known_paths:
            sections = {known.rpartition(".")[0] for known in prefixes(known_paths)} - {""}
            if path not in sections:
                raise InputError("unknown path", source=source, hint=nearest_path(str(path), {*known_paths, *sections}))
            if not isinstance(value, Mapping):
                raise _section_error(path, value, known_paths)
        _set(result, path, _copy(value), scalar_keys or {})
    return result


def prefixes(paths: Collection[str]) -> set[str]:
    """The paths together with their beginnings up to each dot."""
    return {".".join(parts[:end]) for path in paths for parts in [path.split(".")] for end in range(1, len(parts) + 1)}


def _section_error(path: str, value: object, known_paths: Collection[str]) -> InputError:
    inside = _children(path, prefixes(known_paths))
    return InputError(
        "this is a section, not a value",
        source=f"--set {path}",
        given=value,
        expected="a value inside it, below " + ", ".join(inside),
    )


def _children(section: str, paths: Collection[str]) -> list[str]:
    """The paths directly inside a section; inside the whole file if `section` is empty."""
    return sorted(path for path in paths if path.rpartition(".")[0] == section)


def nearest_path(path: str, paths: Collection[str]) -> str:
    """A hint: paths with the same last name, else the nearest path, else the content of the nearest known section."""
    same = sorted(known for known in paths if known.rpartition(".")[2] == path.rpartition(".")[2])
    if same and "." not in path:
        return "did you mean " + " or ".join(repr(known) for known in same) + "?"
    hint = did_you_mean(path, paths)
    if hint.startswith("did you mean"):
        return hint
    section = path
    while section and section not in paths:
        section = section.rpartition(".")[0]
    return "known: " + ", ".join(_children(section, paths))


def _set(target: dict[str, Any], path: str, value: object, scalar_keys: Mapping[str, str]) -> None:
    *parents, last = path.split(".")
    walked = ""
    for name in parents:
        walked = f"{walked}.{name}" if walked else name
        inner = target.setdefault(name, {})
        if not isinstance(inner, dict):
            if walked not in scalar_keys:
                raise InputError(
                    f"cannot be set: the file has no section {walked}", source=f"--set {path}", given=inner
                )
            inner = target[name] = {scalar_keys[walked]: inner}
        target = inner
    target[last] = value


def _copy(value: Any) -> Any:
    """A deep copy with plain dicts and lists."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list | tuple) else value
