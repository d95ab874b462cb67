"""The schema of a system YAML file: takes a plain mapping, gives checked sections; arrays are still to be loaded."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from pydantic import Field, create_model, field_validator

from pe_sim.config.files.schema import (
    Section,
    check_schema_version,
    fault,
    known_paths,
    number_advice,
    validate,
)
from pe_sim.config.networks.schema import SECTIONS, GraphNetworkFile
from pe_sim.errors import InputError, did_you_mean

SCHEMA_VERSION: Final = 1
MAX_ARRAYS: Final = 4096
LINK_KINDS: Final = SECTIONS
LINK_ALIASES: Final = {"switch": "crossbar"}
_KIND: Final = "links.kind"


class ArrayEntryFile(Section):
    """The schema of an entry of `arrays`: a number of equal arrays."""

    array: str | dict[str, Any] = Field(
        description="an array preset's name, the path of an array's file relative to this one, or its mapping"
    )
    count: int = Field(default=1, ge=1, le=MAX_ARRAYS, description="how many of them")
    set: dict[str, Any] = Field(default_factory=dict, description="new values by dotted path, as --set for an array")

    @field_validator("array", mode="plain")
    @classmethod
    def _name_or_mapping(cls, given: object) -> object:
        if (isinstance(given, str) and given) or isinstance(given, dict):
            return given
        raise fault("not an array", "a preset's name, a path, or an array file's mapping")

    @field_validator("set", mode="plain")
    @classmethod
    def _by_path(cls, given: object) -> object:
        if isinstance(given, dict) and all(isinstance(path, str) and path for path in given):
            return given
        raise fault("not values by dotted path", "a mapping, for instance {overlap: 2, pe.memory.bytes_per_cycle: 128}")


class SystemFloorplanFile(Section):
    """The schema of the floor plan of a system: arrays on a near-square grid."""

    array_pitch_mm: float = Field(gt=0, le=1e6, description="distance between the centres of neighbouring arrays, mm")
    mm_per_cycle: float = Field(gt=0, le=1e6, description="how far a signal travels on a link's wire in one cycle, mm")


class SystemFile(Section):
    """The schema of a whole system file; `system_schema` adds the links."""

    schema_version: int = Field(description="version of this format")
    name: str | None = Field(default=None, min_length=1, description="the system's name; default: the file's")
    arrays: tuple[ArrayEntryFile, ...] = Field(description="the arrays, rank by rank")
    links: None = Field(default=None, description="between the roots of the arrays; null: there is one array alone")
    floorplan: SystemFloorplanFile | None = Field(
        default=None, description="where there are links: what auto latencies are derived from"
    )
    dead_arrays: tuple[int, ...] = Field(default=(), description="ranks that take no part; their links pass on")

    @field_validator("arrays", mode="before")
    @classmethod
    def _list_of_entries(cls, given: object) -> object:
        if isinstance(given, list | tuple) and given:
            return tuple(given)
        raise fault("no list of arrays", "a list with one entry for equal arrays: [{array: bus-tree-1024, count: 8}]")

    @field_validator("dead_arrays", mode="plain")
    @classmethod
    def _ranks(cls, given: object) -> object:
        if not isinstance(given, list | tuple):
            raise fault("no list of ranks", "a list of whole numbers, for instance [3, 5]")
        for rank in given:
            if not isinstance(rank, int) or isinstance(rank, bool):
                raise fault(f"{rank!r} is no rank", "a list of whole numbers", number_advice(rank, whole=True) or "")
        return tuple(given)


def check_system_file(
    raw: Mapping[str, Any], source: str | None = None, overridden: tuple[str, ...] = ()
) -> SystemFile:
    """The checked form of a system file's mapping; its links are the Section of their kind.

    Args:
        raw: what the file holds, aliases of kinds replaced.
        source: what error messages call it.
        overridden: dotted paths that `--set` changed, for the messages.

    Raises:
        InputError: an unknown schema version, or one or several faults, all in one message.
    """
    check_schema_version(raw, SCHEMA_VERSION, source)
    return validate(system_schema(link_kind(raw, source)), raw, source, overridden)


def link_kind(raw: Mapping[str, Any], source: str | None) -> str | None:
    """The kind of a file's links; None if it has no links.

    Raises:
        InputError: the links are no mapping, or there is no such kind.
    """
    links = raw.get("links")
    if links is None:
        return None
    kind = links.get("kind") if isinstance(links, Mapping) else None
    if isinstance(kind, str) and kind in SECTIONS:
        return kind
    known = (*LINK_KINDS, *LINK_ALIASES)
    expected = "one of " + ", ".join(known)
    if not isinstance(links, Mapping):
        raise InputError(
            "not a mapping", source=source, path="links", given=links, expected="a mapping with kind, or null"
        )
    if "kind" not in links:
        raise InputError("missing", source=source, path=_KIND, expected=expected)
    hint = did_you_mean(kind, known) if isinstance(kind, str) else None
    path = None if source == f"--set {_KIND}" else _KIND
    raise InputError("unknown kind of links", source=source, path=path, given=kind, expected=expected, hint=hint)


@cache
def system_schema(kind: str | None) -> type[SystemFile]:
    """The schema of system files whose links are of this kind; None: files without links."""
    if kind is None:
        return SystemFile
    links = (SECTIONS[kind], Field(description="between the roots of the arrays"))
    floorplan = (SystemFloorplanFile, Field(description="what auto latencies are derived from"))
    return create_model("SystemFile", __base__=SystemFile, links=links, floorplan=floorplan)


def system_paths(kind: str | None) -> tuple[str, ...]:
    """The dotted paths of all values outside the entries of `arrays`."""
    outside = (path for path in known_paths(system_schema(kind)) if path.partition(".")[0] != "arrays")
    return (*outside, "arrays")


def refuse_choices(links: GraphNetworkFile, source: str | None) -> None:
    """Raises if links ask for what only arrays have: other arbitration, or algorithms by name.

    Raises:
        InputError: one of them is asked for.
    """
    if links.arbitration != "fifo":
        raise InputError(
            "links serve first come, first served",
            source=source,
            path="links.arbitration",
            given=links.arbitration,
            expected="fifo",
        )
    for kind, name in links.collectives.model_dump().items():
        if name != "best":
            raise InputError(
                "the algorithm of an exchange between arrays is the best one of those that fit its members",
                source=source,
                path=f"links.collectives.{kind}",
                given=name,
                expected="best",
            )
