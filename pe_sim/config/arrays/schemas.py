"""Schemas of array files by kind: takes the kinds of network and memory, gives the schema, or the checked file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationInfo, create_model, field_validator

from pe_sim.config.arrays.schema import (
    MEMORY_KINDS,
    SCHEMA_VERSION,
    ArrayFile,
    PeFile,
)
from pe_sim.config.files.schema import (
    Capacity,
    Section,
    Text,
    check_schema_version,
    fault,
    validate,
)
from pe_sim.config.networks.bus_tree_schema import KINDS
from pe_sim.errors import InputError, did_you_mean

MAX_ROW_BYTES: Final = 2**24
MAX_BANK_CYCLES: Final = 2**12  # four of them times 2**48 columns stays below 2**63

BankBytes = Annotated[int, Field(ge=1, le=MAX_ROW_BYTES)]
BankCycles = Annotated[int, Field(ge=0, le=MAX_BANK_CYCLES)]
Opening = Annotated[int, Field(ge=1, le=MAX_BANK_CYCLES)]

_SECTION: Final = "pe.memory"
_KIND: Final = "pe.memory.kind"


class DramBankFile(Section):
    """The schema of a DRAM bank, whose rows are opened, read column by column, and closed."""

    kind: Literal["dram_bank"] = Field(description="dram_bank: a row is activated, read by columns, and precharged")
    technology: Text = Field(description="the technology the numbers come from")
    capacity_bytes: Capacity = Field(description="capacity")
    column_bytes: BankBytes = Field(description="bytes of one column access")
    row_bytes: BankBytes = Field(description="bytes of a row, whole columns")
    column_cycles: Opening = Field(description="from one column access to the next in an open row, tCCD")
    activate_cycles: Opening = Field(description="from a row's activation to its first column access, tRCD")
    precharge_cycles: BankCycles = Field(description="from a precharge to the next activation, tRP")
    read_to_precharge_cycles: BankCycles = Field(description="from the last column access to the precharge, tRTP")

    @field_validator("row_bytes")
    @classmethod
    def _whole_columns(cls, value: int, info: ValidationInfo) -> int:
        column = info.data.get("column_bytes")
        if column is not None and value % column:
            raise fault("a row is no whole number of columns", f"a multiple of column_bytes, {column}")
        return value


@cache
def schema_with_bank(schema: type[ArrayFile]) -> type[ArrayFile]:
    """The schema of array files with a DRAM bank as the PEs' memory."""
    pe = create_model(
        "PeFile", __base__=PeFile, memory=(DramBankFile, Field(description="the local memory, a DRAM bank"))
    )
    return create_model("ArrayFile", __base__=schema, pe=(pe, Field(description="one processing element")))


def memory_kind(raw: Mapping[str, Any], changes: Mapping[str, object], source: str) -> object:
    """The kind of the PEs' memory after the overrides; None if none is stated.

    Raises:
        InputError: there is no such kind, or a new kind does not take the keys that the file's memory has.
    """
    pe = raw.get("pe")
    memory = pe.get("memory") if isinstance(pe, Mapping) else None
    before = kind = memory.get("kind") if isinstance(memory, Mapping) else None
    flag = None
    for path, value in changes.items():
        section = value.get("memory") if path == "pe" and isinstance(value, Mapping) else value
        if path in ("pe", _SECTION) and isinstance(section, Mapping):
            memory, flag = section, f"--set {path}"
            before = kind = section.get("kind")
        elif path == _KIND:
            kind, flag = value, f"--set {_KIND}"
    if kind is not None and kind not in MEMORY_KINDS:
        raise InputError(
            "not one of the known values",
            source=flag or source,
            path=None if flag == f"--set {_KIND}" else _KIND,
            given=kind,
            expected=" or ".join(MEMORY_KINDS),
            hint=did_you_mean(kind, MEMORY_KINDS) if isinstance(kind, str) else None,
        )
    if isinstance(memory, Mapping) and _is_bank(kind) != _is_bank(before):
        raise InputError(
            f"the file's memory is of kind {before or 'flat'}, whose values a memory of kind {kind} does not take",
            source=flag,
            given=kind,
            hint=f"replace the whole section: --set '{_SECTION}={{kind: {kind}, technology: ..., ...}}'",
        )
    return kind


def _is_bank(kind: object) -> bool:
    return kind == "dram_bank"


def array_schema(kind: object, memory_kind: object = None) -> type[ArrayFile]:
    """The schema of array files with a network and a memory of these kinds; unknown kinds count as bus_tree and flat.

    Args:
        kind: the value of network.kind.
        memory_kind: the value of pe.memory.kind.
    """
    schema = ArrayFile
    if kind != "bus_tree" and kind in KINDS:
        schema = schema_with(str(kind))
    if memory_kind == "dram_bank":
        schema = schema_with_bank(schema)
    return schema


def check_array_file(raw: Mapping[str, Any], source: str | None = None, overridden: tuple[str, ...] = ()) -> ArrayFile:
    """The checked form of an array file's mapping; its network is the Section of its kind.

    Args:
        raw: what the file holds.
        source: what error messages call it.
        overridden: dotted paths that `--set` changed, for the messages.

    Raises:
        InputError: an unknown schema version, or one or several faults, all in one message.
    """
    check_schema_version(raw, SCHEMA_VERSION, source)
    return validate(array_schema(_kind(raw, "network"), _kind(raw, "pe", "memory")), raw, source, overridden)


def _kind(raw: Mapping[str, Any], *sections: str) -> object:
    """The value of `kind` in a section; None if there is none."""
    inside: object = raw
    for name in (*sections, "kind"):
        inside = inside.get(name) if isinstance(inside, Mapping) else None
    return inside


@cache
def schema_with(kind: str) -> type[ArrayFile]:
    """The schema of array files whose network is of this kind."""
    from pe_sim.config.networks.schema import SECTIONS  # most arrays do not need it, and start-up time counts

    section = SECTIONS[kind]
    return create_model("ArrayFile", __base__=ArrayFile, network=(section, Field(description="the interconnect")))
