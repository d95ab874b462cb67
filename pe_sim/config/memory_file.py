"""The Section of a PE's memory that is a DRAM bank, chosen by `pe.memory.kind`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationInfo, create_model, field_validator

from pe_sim.config.array_file import MEMORY_KINDS, ArrayFile, Capacity, PeFile, Text
from pe_sim.config.schema import Section, fault
from pe_sim.errors import InputError, did_you_mean

MAX_ROW_BYTES: Final = 2**24
MAX_BANK_CYCLES: Final = 2**12  # four of them times 2**48 columns stays below 2**63

BankBytes = Annotated[int, Field(ge=1, le=MAX_ROW_BYTES)]
BankCycles = Annotated[int, Field(ge=0, le=MAX_BANK_CYCLES)]
Opening = Annotated[int, Field(ge=1, le=MAX_BANK_CYCLES)]

_SECTION: Final = "pe.memory"
_KIND: Final = "pe.memory.kind"


class DramBankFile(Section):
    """A DRAM bank: rows that are opened and closed, read column by column."""

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
    """The schema with a bank as the PEs' memory."""
    pe = create_model(
        "PeFile", __base__=PeFile, memory=(DramBankFile, Field(description="the local memory, a DRAM bank"))
    )
    return create_model("ArrayFile", __base__=schema, pe=(pe, Field(description="one processing element")))


def memory_kind(raw: Mapping[str, Any], changes: Mapping[str, object], source: str) -> object:
    """The kind of the PEs' memory after the overrides; None if it is not said.

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
