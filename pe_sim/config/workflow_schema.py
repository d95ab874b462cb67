"""The schema of a workflow file: a distribution per operator and layer range, and groups of PEs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, Field, ValidationError, WrapValidator

from pe_sim.config.files.schema import Section, fault, input_error, or_installed
from pe_sim.errors import did_you_mean
from pe_sim.registry import Registry

Matrix = Literal["row", "col", "batch", "replicate"]
Attention = Literal["head", "token", "batch", "replicate"]
Stream = Literal["follow", "replicate", "shard", "batch"]
Vector = Literal["follow", "replicate", "shard", "root", "batch"]

_GROUP: Final = "pe_sim.distributions"
_OF_FFN: Final[Registry[None]] = Registry(_GROUP, dict.fromkeys((*get_args(Matrix), "grid-X")))
MatrixName = Annotated[Matrix | None, WrapValidator(or_installed(Matrix, _GROUP))]
AttentionName = Annotated[Attention | None, WrapValidator(or_installed(Attention, _GROUP))]


def _check_ffn_matrix(name: str) -> str:
    if re.fullmatch("grid-[1-9][0-9]{0,6}", name) or (name != "grid-X" and name in _OF_FFN):
        return name
    raise fault("not one of the known values", " or ".join(_OF_FFN), did_you_mean(name, _OF_FFN))


# The names of `Matrix`, or a grid that cuts the hidden dim X ways.
FfnMatrix = Annotated[str, AfterValidator(_check_ffn_matrix)]


class LayersFile(Section):
    """The schema of the distributions of some layers; missing ones come from `base` or from earlier entries."""

    layers: str | int = Field("all", description="'all', one layer as 7, or a range as '0-15' (0-based, inclusive)")
    qkv: MatrixName = Field(None, description="q, k and v at once")
    q: MatrixName = Field(None, description="query projection")
    k: MatrixName = Field(None, description="key projection")
    v: MatrixName = Field(None, description="value projection")
    attention: AttentionName = Field(None, description="RoPE, cache, scores, softmax and values")
    o: MatrixName = Field(None, description="output projection of attention")
    gate_up: FfnMatrix | None = Field(None, description="gate and up at once")
    gate: FfnMatrix | None = Field(None, description="gate projection (where the family has one)")
    up: FfnMatrix | None = Field(None, description="up projection")
    down: FfnMatrix | None = Field(None, description="down projection")
    stream: Stream | None = Field(None, description="what the stream becomes at the end of the layer")
    attention_norm: Vector | None = Field(None, description="where the norm before (BERT: after) attention runs")
    attention_add: Vector | None = Field(None, description="where attention's residual add runs")
    ffn_norm: Vector | None = Field(None, description="where the norm before (BERT: after) the FFN runs")
    ffn_add: Vector | None = Field(None, description="where the FFN's residual add runs")
    activation: Vector | None = Field(None, description="where the FFN's activation runs")


class WorkflowFile(Section):
    """The schema of a workflow's file."""

    schema_version: Literal[1] = Field(1, description="of this schema")
    name: str | None = Field(None, description="what reports call it; the file's stem if left out")
    summary: str = Field("a workflow of your own", description="one line for people")
    base: str | None = Field(None, description="a named workflow that fills what the layers leave out")
    groups: int = Field(1, ge=1, le=2**20, description="groups of PEs that split the batch, the workflow in each")
    lm_head: MatrixName = Field(None, description="LM head, and BERT's pooler")
    layers: tuple[LayersFile, ...] = Field((), description="what layers are given; later entries win")


def check_workflow_file(raw: Mapping[str, Any], source: str) -> WorkflowFile:
    """The checked form of a workflow file's mapping.

    Raises:
        InputError: it has unknown keys, or wrong types or values; several faults are in one message.
    """
    listed = raw.get("layers")
    fitting = {**raw, "layers": tuple(listed)} if isinstance(listed, list) else dict(raw)
    try:
        return WorkflowFile.model_validate(fitting)
    except ValidationError as error:
        raise input_error(error, WorkflowFile, source) from None
