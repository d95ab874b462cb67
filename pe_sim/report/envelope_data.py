"""What was compared with the RTL: takes `compared.json`, which `make accuracy` measures, gives its checked sections."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from pe_sim.config.schema import Section

PACKAGED: Final = Path(__file__).with_name("compared.json")

Numbers = Annotated[tuple[int, ...], Field(min_length=1)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


class ComparedMachine(Section):
    """What the RTL is; it has no bursts and no downlink of the tree."""

    networks: Names = Field(description="values of network.kind")
    arbitrations: Names = Field(description="values of network.arbitration")
    memories: Names = Field(description="kinds of the PEs' memory: flat, dram_bank")


class ComparedCollectives(Section):
    """Collectives alone on the whole array."""

    kinds: Names = Field(description="as `pe-sim collective` names them")
    num_pes: Numbers = Field(description="what lies between the least and the greatest counts as compared")
    arities: Numbers = Field(description="of the tree, these alone")
    overlaps: Numbers = Field(description="overlap levels, these alone")
    worst_percent: Percent = Field(description="greatest |simulator - RTL| / RTL of their cycles, in percent")


class ComparedGemms(Section):
    """GEMMs alone on one PE."""

    overlaps: Numbers = Field(description="overlap levels, these alone")
    worst_percent_whole_tiles: Percent = Field(description="where all tiles are full and whole words of the memory")
    worst_percent_edge_tiles: Percent = Field(description="elsewhere")


class ComparedSteps(Section):
    """Whole steps of a model of one layer."""

    families: Names = Field(description="of models: llama, gpt2, bert")
    phases: Names = Field(description="decode, prefill")
    workflows: Names = Field(description="named ones, these alone")
    batch_sizes: Numbers = Field(description="sequences, these alone")
    groups: Numbers = Field(description="groups of PEs, these alone")
    num_pes: Numbers = Field(description="what lies between the least and the greatest counts as compared")
    arities: Numbers = Field(description="of the tree, these alone")
    overlaps: Numbers = Field(description="overlap levels, these alone")
    worst_percent: Percent = Field(description="greatest |simulator - RTL| / RTL of their cycles, in percent")


class Compared(Section):
    """Everything that was compared with the RTL, and the greatest difference of each kind of result."""

    schema_version: Literal[1]
    machine: ComparedMachine
    collective: ComparedCollectives
    gemm: ComparedGemms
    step: ComparedSteps

    def to_json(self) -> str:
        """The text of `compared.json`, as `make accuracy` writes it."""
        return json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"


def read_compared(path: Path) -> Compared:
    """What a file says was compared.

    Raises:
        OSError: the file cannot be read.
        pydantic.ValidationError: it is not of this schema.
    """
    return Compared.model_validate_json(path.read_bytes())


@cache
def packaged() -> Compared:
    """What was compared of this version."""
    return read_compared(PACKAGED)
