"""Keys of points: takes a resolved config, gives a text that is the same for the same config and version only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from pe_sim._version import __version__
from pe_sim.mapping.workflow import Workflow

SCHEMA: Final = "pe-sim.sweep/1"
_LENGTH: Final = 32  # hexadecimal digits: 128 bits, beyond any chance of two points with one key


def canonical(value: object) -> str:
    """JSON in which equal values are equal texts: keys sorted, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(*parts: str) -> str:
    """The key of some texts in their order, of this version of the program and of the table."""
    text = canonical([SCHEMA, __version__, *parts])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]


def unresolved_key(settings: Mapping[str, Any], error: str) -> str:
    """The key of a point whose settings make no config; another fault is another key."""
    return digest("unresolved", canonical(settings), error)


def workflow_text(workflow: Workflow) -> str:
    """A workflow as JSON without what does not change what it does: where it came from, and its summary."""
    told = asdict(workflow)
    for name in ("source", "summary"):
        told.pop(name)
    for rule in told["rules"]:
        rule.pop("source")
    return canonical(told)
