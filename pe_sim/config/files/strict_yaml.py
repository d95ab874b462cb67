"""Strict YAML: takes text, gives plain Python values, or an InputError with line and column.

Stricter than PyYAML's safe loader where YAML 1.1 surprises: keys are text and must not repeat, only true and false are
booleans (`no` and `on` stay text), 016 is not octal, 1:30 is not base sixty, dates stay text. `1e9` stays text as in
YAML 1.1; where a number is needed, the schema says what to write.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from pe_sim.errors import InputError

if TYPE_CHECKING:
    from yaml import SafeLoader as _BaseLoader
else:  # the C parser is about ten times faster and reads the same language
    _BaseLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_BOOL: Final = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+|0b[01_]+")
_FLOAT: Final = re.compile(
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|[-+]?\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_MAX_DEPTH: Final = 100
_MAX_ALIASES: Final = 32  # aliases of aliases multiply the size of a document
_TAG: Final = "tag:yaml.org,2002:"
_REPLACED_TAGS: Final = frozenset(_TAG + name for name in ("bool", "int", "float", "timestamp"))


class _StrictLoader(_BaseLoader):
    """A YAML loader with the rules of the module's docstring."""

    _depth = 0

    def descend_resolver(self, current_node: yaml.Node | None, current_index: Any) -> None:
        """Counts the nesting on the way down: the C parser recurses without a limit and would crash the process."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.YAMLError("nested too deeply")
        super().descend_resolver(current_node, current_index)

    def ascend_resolver(self) -> None:
        """Counts the nesting on the way up."""
        self._depth -= 1
        super().ascend_resolver()


def parse_yaml_value(text: str, source: str) -> Any:
    """The value of one YAML document: mapping, list or scalar; None if it is empty.

    Args:
        text: the document.
        source: what error messages call it.

    Raises:
        InputError: malformed text, a duplicate key or a key that is not text, with line and column.
    """
    loader: _StrictLoader | None = None
    try:
        if text.count("*") > _MAX_ALIASES and _count_aliases(text) > _MAX_ALIASES:
            raise InputError(f"more than {_MAX_ALIASES} aliases (*name); write the values out", source=source)
        loader = _StrictLoader(text)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        raise _marked_error(error, source) from None
    except yaml.YAMLError as error:
        raise InputError(f"malformed YAML: {_one_line(str(error))}", source=source) from None
    except RecursionError:
        raise InputError("malformed YAML: nested too deeply", source=source) from None
    except (ValueError, LookupError, AttributeError) as error:  # from PyYAML on `!!bool 3`, 5000 digits and the like
        raise InputError(
            f"malformed YAML: a value does not read as its type ({_one_line(str(error))})", source=source
        ) from None
    finally:
        if loader is not None:
            loader.dispose()


def _count_aliases(text: str) -> int:
    return sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_BaseLoader))


def _marked_error(error: yaml.MarkedYAMLError, source: str) -> InputError:
    mark = error.problem_mark or error.context_mark
    where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    what = ", ".join(part for part in (error.context, error.problem) if part)
    return InputError(f"malformed YAML{where}: {_one_line(what)}", source=source, hint=error.note)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _construct_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    """The mapping of a node, with distinct text keys; it is built at once, so one inside itself is refused."""
    first_lines: dict[str, int] = {}
    for key, _ in node.value:
        if key.tag == _TAG + "merge":
            continue
        if key.tag != _TAG + "str":
            scalar = isinstance(key, yaml.ScalarNode)
            problem = f"the key {key.value if scalar else '[...]'} is not text"
            note = f'put it in quotes: "{key.value}"' if scalar else None
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark, note)
        if key.value in first_lines:
            problem = f"duplicate key {key.value!r}, first at line {first_lines[key.value]}"
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark, "keep one of the two")
        first_lines[key.value] = key.start_mark.line + 1
    return loader.construct_mapping(node, deep=True)


def _install() -> None:
    resolvers = {
        first: [(tag, regexp) for tag, regexp in pairs if tag not in _REPLACED_TAGS]
        for first, pairs in _BaseLoader.yaml_implicit_resolvers.items()
    }
    _StrictLoader.yaml_implicit_resolvers = resolvers
    for name, regexp, first in (
        ("bool", _BOOL, "tTfF"),
        ("int", _INT, "-+0123456789"),
        ("float", _FLOAT, "-+0123456789."),
    ):
        whole = re.compile(f"^(?:{regexp.pattern})$")
        _StrictLoader.add_implicit_resolver(_TAG + name, whole, list(first))
    _StrictLoader.add_constructor(_TAG + "map", _construct_mapping)


_install()
