"""Foreign files: finds the dialect by its keys, takes the known entries, refuses or ignores the others."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from pe_sim.config.files.schema import Section, validate
from pe_sim.errors import InputError, did_you_mean
from pe_sim.registry import Registry

Schema = TypeVar("Schema", bound=Section)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A key of a feature that is not supported: refused unless its value is a harmless one."""

    reason: str
    harmless: tuple[object, ...] = (None,)

    def allows(self, value: object) -> bool:
        """Whether `value` leaves the feature off: harmless, a list of such, or empty (as null); 0 is not False."""
        if value in ("", [], {}):
            value = None
        if isinstance(value, list):
            return all(map(self.allows, value))
        return any(type(value) is type(item) and value == item for item in self.harmless)

    def error(self, key: str, value: object) -> InputError:
        """The error to raise for a value that is not allowed."""
        harmless = " or ".join(_json_word(item) for item in self.harmless)
        problem, expected = f"not supported: {self.reason}", f"{harmless}, or no such key"
        return InputError(problem, path=key, given=value, expected=expected)


class UnknownKey(Refusal):
    """An unknown key: ignored and reported if its value is a single one or empty, refused if it holds more."""

    def allows(self, value: object) -> bool:
        """Whether the value is too small to describe a part of a model."""
        return not value or not isinstance(value, list | dict)

    def error(self, key: str, value: object) -> InputError:
        """The error to raise for a value that is not allowed."""
        return InputError("unknown key", path=key, given=value)


class Bookkeeping(UnknownKey):
    """A key that says nothing of the model's shape: ignored and reported whatever its value is."""

    def allows(self, value: object) -> bool:
        """True for every value."""
        return True


UNKNOWN_KEY: Final = UnknownKey("unknown key")
BOOKKEEPING: Final = Bookkeeping("bookkeeping")
_MISSPELT: Final = 0.9  # least similarity at which an unknown key is taken for a misspelt missing one


@dataclass(frozen=True, slots=True)
class KeyRules:
    """Rules for keys that a schema does not have: `ignored` ones cannot matter, `refused` ones can.

    `others` judges the rest as None, a Refusal, UNKNOWN_KEY or BOOKKEEPING; without it they are refused as unknown.
    """

    ignored: frozenset[str]
    ignored_prefixes: tuple[str, ...] = ()
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    others: Callable[[str], Refusal | None] | None = None

    def refusal(self, key: str) -> Refusal | None:
        """The refusal that judges a key's value; None if the key cannot change what inference computes."""
        if key in self.refused:
            return self.refused[key]
        if key in self.ignored or key.startswith(self.ignored_prefixes):
            return None
        return self.others(key) if self.others else UNKNOWN_KEY

    def not_understood(self, keys: Iterable[str]) -> tuple[str, ...]:
        """The keys among ignored ones that nobody knows."""
        return tuple(key for key in keys if isinstance(self.refusal(key), UnknownKey))


def sort_keys(
    raw: Mapping[str, object], known: Iterable[str], rules: KeyRules
) -> tuple[dict[str, object], tuple[str, ...]]:
    """The entries of `raw` that a schema knows, and the names of ignored ones, in the file's order.

    Raises:
        InputError: a refused feature is switched on, or an unknown key is not ignored or looks misspelt.
    """
    known = frozenset(known)
    missing = known - raw.keys()
    values: dict[str, object] = {}
    ignored: list[str] = []
    for key, value in raw.items():
        if key in known:
            values[key] = value
            continue
        refusal = rules.refusal(key)
        refused = refusal is not None and not refusal.allows(value)
        strange = refusal is UNKNOWN_KEY or (refused and key not in rules.refused)
        if strange and (not rules.others or difflib.get_close_matches(key[:99], missing, 1, _MISSPELT)):
            raise InputError("unknown key", path=key, given=value, hint=did_you_mean(key, known))
        if refusal is not None and refused:
            raise refusal.error(key, value)
        ignored.append(key)
    return values, tuple(ignored)


def _json_word(value: object) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)


def read_entries(schema: type[Schema], raw: Mapping[str, object], rules: KeyRules) -> tuple[Schema, tuple[str, ...]]:
    """The entries of `raw` that `schema` knows, checked, and the names of ignored ones.

    Raises:
        InputError: as `sort_keys` and `validate` raise it.
    """
    values, ignored = sort_keys(raw, schema.model_fields, rules)
    return validate(schema, values, None), ignored


# ---- Dialects of files: takes a mapping, finds the dialect by the keys it has.

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Dialect(Generic[Read]):
    """A dialect of files: its name, the keys it is known by, and how to recognise and read it."""

    name: str
    marks: str
    recognises: Callable[[Mapping[str, object]], bool]
    read: Read


def check_keys(raw: Mapping[str, object]) -> None:
    """Checks that all keys are texts; raises InputError if not."""
    for key in raw:
        if not isinstance(key, str):
            raise InputError("a key is not a text", given=key)


def detect(dialects: Registry[Dialect[Read]], raw: Mapping[str, object], noun: str) -> Dialect[Read]:
    """The first dialect that recognises the keys.

    Args:
        dialects: the dialects in the order in which they are tried, those of installed packages last.
        raw: the mapping of the file.
        noun: the kind of file, for the error.

    Raises:
        InputError: no dialect does.
    """
    for dialect in dialects.values():
        if dialect.recognises(raw):
            return dialect
    raise InputError(
        f"this is no {noun} of a known dialect",
        given=list(raw),
        expected="; ".join(f"{dialect.name} (has {dialect.marks})" for dialect in dialects.values()),
    )
