"""Known machines: takes a preset's name, a path or a mapping, gives its vendor's figures of memory and peak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator

from pe_sim.config.dtypes import BITS
from pe_sim.config.files.schema import Section, checked_file, fault
from pe_sim.errors import InputError

_MAX_RATE: Final = 1e21  # flops or bytes a second: far above any machine

Rate = Annotated[float | None, Field(gt=0, le=_MAX_RATE)]


class PeaksFile(Section):
    """The schema of dense matrix throughput by element type; types without hardware support are left out."""

    fp32: Rate = Field(default=None, description="or TF32, where the matrix units have it")
    bf16: Rate = Field(default=None, description="flops a second")
    fp16: Rate = Field(default=None, description="flops a second")
    fp8: Rate = Field(default=None, description="flops a second")
    int8: Rate = Field(default=None, description="operations a second")
    int4: Rate = Field(default=None, description="operations a second")


class MachineFile(Section):
    """The schema of a machine's file."""

    schema_version: Literal[1] = Field(1, description="of this schema")
    name: str | None = Field(None, min_length=1, description="what tables call it; the file's stem if left out")
    description: str = Field(min_length=1, description="one line for people")
    memory_technology: str = Field(min_length=1, description="of the memory that holds the weights")
    memory_bytes: int = Field(ge=1, le=2**60, description="of one device")
    memory_bytes_per_second: float = Field(gt=0, le=_MAX_RATE, description="peak rate of that memory")
    peak_flops_per_second: PeaksFile = Field(description="dense peak of the matrix units, a MAC counts 2")
    source: str = Field(min_length=1, description="where the figures are printed")
    confirmed: str = Field(min_length=1, description="how they were checked, or that they are recalled")

    @field_validator("peak_flops_per_second")
    @classmethod
    def _at_least_one(cls, value: PeaksFile) -> PeaksFile:
        if not value.model_dump(exclude_none=True):
            raise fault("a machine without a peak", "at least one element type, for instance fp16: 312.0e+12")
        return value


@dataclass(frozen=True, slots=True)
class Machine:
    """The figures of one device as its vendor states them.

    Args:
        memory_bytes, memory_bytes_per_second: size and peak rate of the memory that holds weights and KV cache.
        peak_flops_per_second: dense peak by element type; a MAC counts 2.
        source, confirmed: where the figures come from, and how far they were checked.
    """

    name: str
    description: str
    memory_technology: str
    memory_bytes: int
    memory_bytes_per_second: float
    peak_flops_per_second: Mapping[str, float]
    source: str
    confirmed: str

    def peak_for(self, dtype: str) -> tuple[str, float]:
        """(type, flops/s) of `dtype`, or else of the fastest type that can hold it (no integer holds floats).

        Raises:
            InputError: this machine has no such type.
        """
        same = self.peak_flops_per_second.get(dtype)
        if same is not None:
            return dtype, same
        wide = {name: peak for name, peak in self.peak_flops_per_second.items() if _holds(name, dtype)}
        if not wide:
            raise InputError(
                f"no peak is known for {dtype}",
                source=f"machine {self.name}",
                path="peak_flops_per_second",
                expected="one of " + ", ".join(self.peak_flops_per_second),
            )
        return max(wide.items(), key=lambda item: item[1])


def load_machine(given: str | Path | Mapping[str, Any]) -> Machine:
    """A machine by a preset's name, from a YAML or JSON file, or from such a file's mapping.

    Raises:
        InputError: no such preset or file, or a fault in it.
    """
    file, stem = checked_file("machines", given, MachineFile)
    return Machine(
        name=file.name or stem,
        description=file.description,
        memory_technology=file.memory_technology,
        memory_bytes=file.memory_bytes,
        memory_bytes_per_second=file.memory_bytes_per_second,
        peak_flops_per_second=file.peak_flops_per_second.model_dump(exclude_none=True),
        source=file.source,
        confirmed=file.confirmed,
    )


def _holds(wide: str, dtype: str) -> bool:
    """Whether the type `wide` can hold the values of `dtype`."""
    return BITS[wide] >= BITS[dtype] and (dtype.startswith("int") or not wide.startswith("int"))
