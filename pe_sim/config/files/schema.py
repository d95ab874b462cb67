"""Basics of file schemas: takes a schema and a plain mapping, gives the checked sections or one InputError."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from pe_sim.config.files.loading import (
    SINGULAR,
    PresetKind,
    is_preset,
    load_mapping,
    printable_tree,
    resolve,
)
from pe_sim.errors import InputError, did_you_mean, printable, short_repr, shown_lines
from pe_sim.registry import Registry

_MORE: Final = 10  # faults that are told in addition to the first
FAULT: Final = "pe_sim"  # the type of the errors that `fault` makes
_TEXT_NUMBER: Final = re.compile(r"([-+]?)([0-9]+)(?:\.([0-9]*))?(?:[eE]([-+]?)([0-9]{1,3}))?")


class Section(BaseModel):
    """The schema of a mapping in a file: refuses unknown keys, texts or booleans for numbers, NaN and inf."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    # A scalar in place of the section stands for {scalar_key: scalar}.
    scalar_key: ClassVar[str | None] = None


_S = TypeVar("_S", bound=Section)


def fault(problem: str, expected: str = "", hint: str = "") -> PydanticCustomError:
    """The error for a validator to raise, with the three texts of the InputError that `input_error` makes of it."""
    return PydanticCustomError(FAULT, "{problem}", {"problem": problem, "expected": expected, "hint": hint})


def or_installed(names: object, group: str, prefix: str = "") -> Callable[[Any, ValidatorFunctionWrapHandler], Any]:
    """A validator that accepts a Literal's built-in names, and those that installed packages have in a group."""
    registry: Registry[None] = Registry(group, dict.fromkeys(get_args(names)), prefix=prefix)

    def check(given: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(given)
        except ValidationError:
            if given in registry:
                return given
            if len(registry) == len(registry.built_in):
                raise
            hint = did_you_mean(given, registry) if isinstance(given, str) else ""
            raise fault("not one of the known values", " or ".join(registry), hint) from None

    return check


def subsection(field: FieldInfo) -> type[Section] | None:
    """The Section that a field holds, or None for a plain value."""
    annotation = field.annotation
    if get_origin(annotation) is tuple:  # a list of sections
        annotation = get_args(annotation)[0]
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _annotation(field: FieldInfo) -> tuple[Any, list[Any]]:
    """The field's annotation, without the None of an optional one, and the constraints on its values."""
    parts = [part for part in get_args(field.annotation) if part is not type(None)]
    optional = type(None) in get_args(field.annotation) and len(parts) == 1
    annotation, limits = parts[0] if optional else field.annotation, list(field.metadata)
    if get_origin(annotation) is Annotated:
        annotation, inner = get_args(annotation)
        limits += inner.metadata
    return annotation, limits


@cache
def known_paths(schema: type[Section]) -> tuple[str, ...]:
    """The dotted paths of all values that a file of this schema can hold, optional ones included."""
    return tuple(path for path, section in _walk(schema, "") if section is None or section.scalar_key)


@cache
def scalar_keys(schema: type[Section]) -> dict[str, str]:
    """By dotted path of a section that may be written as a scalar, the key that the scalar stands for."""
    return {path: section.scalar_key for path, section in _walk(schema, "") if section and section.scalar_key}


def _walk(schema: type[Section], prefix: str) -> Iterator[tuple[str, type[Section] | None]]:
    for name, section in _sections(schema):
        yield prefix + name, section
        if section is not None:
            yield from _walk(section, f"{prefix}{name}.")


def section_to_dict(schema: type[Section], part: object) -> dict[str, Any]:
    """The mapping that a file of `schema` would hold for `part`, JSON-ready, in the order of the schema.

    Args:
        schema: the schema that names the values.
        part: an object with attributes of these names; missing ones are left out.
    """
    found: dict[str, Any] = {}
    for name, section in _sections(schema):
        if not hasattr(part, name):
            continue
        value = getattr(part, name)
        if isinstance(value, Mapping):
            found[name] = dict(value)
        elif isinstance(value, tuple):
            found[name] = list(value)
        else:
            found[name] = section_to_dict(section, value) if section else value
    return found


@cache
def _sections(schema: type[Section]) -> tuple[tuple[str, type[Section] | None], ...]:
    return tuple((name, subsection(field)) for name, field in schema.model_fields.items())


def number_advice(given: object, whole: bool) -> str | None:
    """Advice on what to write instead of `given` where a number belongs; None if there is none.

    Args:
        given: the value that was found.
        whole: whether an integer is needed.
    """
    if isinstance(given, bool):
        return "true and false are no numbers"
    if isinstance(given, float) and whole and given.is_integer() and abs(given) < 2**63:
        return f"write it without point and exponent: {int(given)}"
    text = given.strip() if isinstance(given, str) else ""
    match = _TEXT_NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, digits, fraction, exponent_sign, exponent = match.groups()
    if exponent is None:
        return f"this is text, not a number: write {text} without quotes"
    yaml_float = f"{sign}{digits}.{fraction or '0'}e{exponent_sign or '+'}{exponent}"
    value = Decimal(yaml_float)
    integer = str(int(value)) if value == value.to_integral_value() and value.adjusted() < 19 else None
    better = (integer or "a whole number") if whole else yaml_float
    return f"YAML reads {text} as text, not as a number: write {better}"


def input_error(
    error: ValidationError,
    schema: type[Section],
    source: str | None,
    overridden: Collection[str] = (),
    prefix: str = "",
) -> InputError:
    """All faults of a ValidationError as one InputError: the first in full, the others in a line each.

    Args:
        error: what pydantic raised for `schema`.
        schema: the class the file was checked against.
        source: the file or preset.
        overridden: dotted paths that `--set` gave; a fault at or below one names `--set` as its source.
        prefix: beginning of every path, ending in a dot if not empty.
    """
    found = error.errors(include_url=False)
    first, *others = (_Fault.of(details, schema, prefix) for details in found[: 1 + _MORE])
    flag = next((f"--set {path}" for path in overridden if _is_within(first.path, path)), None)
    path = None if flag == f"--set {first.path}" else first.path
    facts: dict[str, Any] = {} if first.absent else {"given": first.given}
    made = InputError(
        first.problem, source=flag or source, path=path, expected=first.expected, hint=first.hint, **facts
    )
    if others:
        noun = "fault" if len(others) == 1 else "faults"
        lines = [f"    {other.line}" for other in others]
        lines += [f"    and {len(found) - 1 - _MORE:,} more"] if len(found) > 1 + _MORE else []
        made.args = ("\n".join([str(made), f"  {len(found) - 1:,} more {noun}:", *shown_lines(lines)]),)
    return made


def _is_within(path: str, section: str) -> bool:
    return path == section or path.startswith(section + ".")


@dataclass(frozen=True)
class _Fault:
    path: str
    problem: str
    given: object
    absent: bool
    expected: str | None
    hint: str | None

    @classmethod
    def of(cls, details: ErrorDetails, schema: type[Section], prefix: str) -> _Fault:
        loc, given, kind = details["loc"], details["input"], details["type"]
        section, field = _find(schema, loc)
        path = prefix + ".".join(str(part) for part in loc)
        if kind == FAULT:
            ctx = details["ctx"]
            return cls(path, ctx["problem"], given, False, ctx["expected"] or None, ctx["hint"] or None)
        if kind == "missing":
            return cls(path, "missing", None, True, _expected(field), _meaning(loc, field))
        if kind == "extra_forbidden":
            keys = section.model_fields if section else ()
            return cls(path, "unknown key", given, False, None, did_you_mean(str(loc[-1]), keys))
        return cls(
            path, _problem(kind, given), given, False, _expected(field), _hint(given, field) or _meaning(loc, field)
        )

    @property
    def line(self) -> str:
        parts = [f"{self.path}: {self.problem}"]
        if not self.absent:
            parts.append(f"given {short_repr(self.given, 60)}")
        if self.expected:
            parts.append(f"expected {self.expected}")
        return ", ".join(parts) + (f" ({self.hint})" if self.hint else "")


def _find(schema: type[Section], loc: tuple[int | str, ...]) -> tuple[type[Section] | None, FieldInfo | None]:
    """The section that holds the last part of `loc`, and its field; None if the section has no such key."""
    section: type[Section] | None = schema
    field: FieldInfo | None = None
    for part in loc:
        if isinstance(part, int):  # a place in a list of sections
            continue
        if field is not None:
            section = subsection(field)
        field = section.model_fields.get(str(part)) if section else None
        if field is None:
            break
    return section, field


def _problem(kind: str, given: object) -> str:
    if kind in ("model_type", "dict_type"):
        return "not a mapping"
    if kind == "invalid_key":
        return "a key that is not text"
    if kind == "finite_number":
        return "not a finite number"
    if kind in ("greater_than", "greater_than_equal"):
        return "too small"
    if kind == "less_than_equal":
        return "too large"
    if kind.startswith(("int_", "float_")):
        return "not a whole number" if kind.startswith("int_") else "not a number"
    if kind == "bool_type":
        return "not a boolean"
    if kind == "string_type":
        return "not text"
    if kind == "string_too_short":
        return "empty"
    return "not one of the known values" if kind == "literal_error" else "not a usable value"


def _expected(field: FieldInfo | None) -> str | None:
    """What a field accepts, in words, from its annotation and constraints."""
    if field is None:
        return None
    section, (annotation, limits) = subsection(field), _annotation(field)
    if section is not None:
        start = f"a {section.scalar_key}, or " if section.scalar_key else ""
        return f"{start}a mapping with {', '.join(section.model_fields)}"
    if get_origin(annotation) is Literal:
        return " or ".join(str(value) for value in get_args(annotation))
    if get_origin(annotation) is dict:
        return "a mapping"
    types = get_args(annotation) or (annotation,)
    for plain, words in ((bool, "true or false"), (str, "text")):
        if plain in types and int not in types:
            return words
    auto = ", or auto" if any(get_origin(part) is Literal for part in types) else ""
    return ("a whole number" if int in types else "a number") + _bounds(limits) + auto


def _bounds(limits: Iterable[Any]) -> str:
    found = {name: getattr(limit, name) for limit in limits for name in ("ge", "gt", "le") if hasattr(limit, name)}
    if "gt" in found:
        return f" above {found['gt']}" + (f", at most {found['le']:g}" if "le" in found else "")
    if "le" in found:
        return f" from {found['ge']} to {found['le']}"
    return f" from {found['ge']} on" if found else ""


def _hint(given: object, field: FieldInfo | None) -> str | None:
    if field is None:
        return None
    annotation, _ = _annotation(field)
    types = get_args(annotation) or (annotation,)
    if get_origin(annotation) is Literal:
        return did_you_mean(given, map(str, types)) if isinstance(given, str) else None
    if bool in types and isinstance(given, str) and given.lower() in ("yes", "no", "on", "off"):
        return f"YAML 1.2 has no {given}: write {'true' if given.lower() in ('yes', 'on') else 'false'}"
    if int in types or float in types:
        return number_advice(given, whole=int in types)
    return None


def _meaning(loc: tuple[int | str, ...], field: FieldInfo | None) -> str | None:
    return f"{loc[-1]} means: {field.description}" if field and field.description else None


def validate(
    schema: type[_S], raw: Mapping[str, Any], source: str | None, overridden: Collection[str] = (), prefix: str = ""
) -> _S:
    """`raw` as an instance of `schema`.

    Args:
        schema: the class of the mapping.
        raw: the mapping of the file.
        source: what errors call the file.
        overridden: dotted paths that `--set` gave.
        prefix: the dotted path of `raw` inside its source, ending in a dot, or empty.

    Raises:
        InputError: one or several faults, all in one message; see `input_error`.
    """
    try:
        return schema.model_validate(printable_tree(dict(raw)))
    except ValidationError as error:
        raise input_error(error, schema, source, overridden, prefix) from None


def check_schema_version(raw: Mapping[str, Any], known: int, source: str | None) -> None:
    """Checks that a file's mapping is of the known version, or states none.

    Raises:
        InputError: it is of another version.
    """
    version = raw.get("schema_version", known)
    if type(version) is not int or version != known:
        raise InputError(
            "unknown schema version",
            source=source,
            path="schema_version",
            given=version,
            expected=f"{known}, the one version this program knows",
        )


# ---- Checked files: takes a preset's name, a path or a file's mapping, gives the file by its schema and its name.


def checked_file(kind: PresetKind, given: str | Path | Mapping[str, Any], schema: type[_S]) -> tuple[_S, str]:
    """The checked file, as an instance of `schema`, and a name for it if it states none.

    Raises:
        InputError: there is no such preset or file, or it has a fault.
    """
    noun = SINGULAR[kind]
    if isinstance(given, Mapping):
        return validate(schema, given, noun), noun
    if not isinstance(given, str | Path):
        raise InputError(f"not a {noun}", given=given, expected="a preset's name, a path, or a file's mapping")
    path = resolve(kind, given)
    source = f"preset {given}" if is_preset(kind, given) else str(given)
    return validate(schema, load_mapping(path), source), printable(path.stem)


MAX_BYTES: Final = 2**48
MAX_RATE: Final = 2**32  # bytes per cycle; times 2**31 cycles stays below 2**63
MAX_CYCLES: Final = 2**20  # of one latency; times 2**40 messages of an all-to-all stays below 2**63
MAX_PES: Final = 2**20
MAX_UNITS: Final = 2**24  # lanes, outputs, depth; outputs times depth stays below 2**48
Capacity = Annotated[int, Field(ge=1, le=MAX_BYTES)]
Rate = Annotated[int, Field(ge=1, le=MAX_RATE)]
Units = Annotated[int, Field(ge=1, le=MAX_UNITS)]
Cycles = Annotated[int, Field(ge=0, le=MAX_CYCLES)]
Text = Annotated[str, Field(min_length=1)]
MAX_SIZE: Final = 2**31  # far above any real model; products of two sizes fit 64 bits
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Positive = Annotated[float, Field(gt=0)]
AtLeastOne = Annotated[float, Field(ge=1)]


def check_latency(value: Any, minimum: int, levels: bool = False) -> Any:
    """The value if it is a whole number of cycles, `auto` or (with `levels`) a list of cycles; else raises a fault."""
    if isinstance(value, str) and value == "auto":
        return value
    for item in value if levels and isinstance(value, list) else [value]:
        if not isinstance(item, int) or isinstance(item, bool) or not minimum <= item <= MAX_CYCLES:
            expected = f"a whole number of cycles from {minimum} to {MAX_CYCLES}, or auto"
            expected += ", or a list with one number a level" if levels else ""
            raise fault("not a latency", expected, number_advice(item, whole=True) or _auto_advice(item))
    return value


def _auto_advice(given: object) -> str:
    return did_you_mean(given, ["auto"]) if isinstance(given, str) else "auto derives it from the floorplan"


BusLatency = Annotated[int | Literal["auto"], BeforeValidator(partial(check_latency, minimum=0))]
TreeLatency = Annotated[
    int | Literal["auto"] | list[int], BeforeValidator(partial(check_latency, minimum=1, levels=True))
]
