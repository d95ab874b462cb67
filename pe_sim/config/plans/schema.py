"""Plan files in pe-sim's own form: takes a mapping, gives a plan; and a plan as such a mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from pe_sim.config.files.schema import Section, fault, validate
from pe_sim.config.plans.checks import MAX_COUNT
from pe_sim.config.plans.plan import PARTITIONS, Degrees, ParallelPlan, PipelinePlan, StagePlan
from pe_sim.errors import did_you_mean

_LAYERS_WORDS: Final = "a number of layers from 1, or [first, end): two bounds that rise"


def _is_whole(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_COUNT


def _check_partition(value: object) -> object:
    if isinstance(value, tuple):
        if all(_is_whole(entry) for entry in value):
            return value
        raise fault("not bounds", "whole numbers that rise from 0 to the number of layers")
    if value in PARTITIONS:
        return value
    words = f"{', '.join(PARTITIONS)}, or a list of bounds"
    raise fault("not one of the known methods", words, did_you_mean(str(value), PARTITIONS))


def _check_layers(value: object) -> object:
    if _is_whole(value, 1):
        return value
    if isinstance(value, tuple) and len(value) == 2 and all(map(_is_whole, value)) and value[0] < value[1]:
        return value
    raise fault("not layers of a stage", _LAYERS_WORDS)


def _check_ranks(value: object) -> object:
    if isinstance(value, tuple) and all(map(_is_whole, value)):
        return value
    raise fault("not a list of ranks", "whole numbers from 0, in brackets")


def _check_matrices(value: object) -> object:
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return dict(value)
    raise fault("not a mapping", "row or col by operator: {q: row, o: col}")


Partition = Annotated[Any, BeforeValidator(_check_partition)]
Layers = Annotated[Any, BeforeValidator(_check_layers)]
Ranks = Annotated[Any, BeforeValidator(_check_ranks)]
Matrices = Annotated[Any, BeforeValidator(_check_matrices)]


class SharesFile(Section):
    """The schema of how the arrays of a stage share what they work on."""

    dp: int = Field(1, ge=1, le=MAX_COUNT, description="shares of the batch")
    tp: int = Field(1, ge=1, le=MAX_COUNT, description="shares of the operators")
    cp: int = Field(1, ge=1, le=MAX_COUNT, description="shares of the tokens")
    consecutive: bool = Field(True, description="whether arrays that share an operator are neighbours")

    @property
    def shares(self) -> Degrees:
        """The degrees that the section states."""
        return Degrees(self.dp, self.cp, self.tp, self.consecutive)


class DegreesFile(SharesFile):
    """The schema of how the arrays of a stage share a run of layers."""

    times: int = Field(1, ge=1, le=MAX_COUNT, description="how many layers in a row are shared so")

    def degrees(self) -> tuple[Degrees, ...]:
        """The degrees of each of its layers."""
        return (self.shares,) * self.times


class HeadFile(SharesFile):
    """The schema of how the arrays of the last stage share the LM head."""

    tp: int = Field(1, ge=1, le=MAX_COUNT, description="shares of the vocabulary")
    consecutive: bool = Field(True, description="whether arrays that share the head are neighbours")


class StageFile(Section):
    """The schema of a stage: consecutive layers on some arrays."""

    arrays: Ranks = Field(description="ranks, in the order of their shares")
    layers: Layers = Field(description=_LAYERS_WORDS)
    dp: int = Field(1, ge=1, le=MAX_COUNT, description="shares of the batch")
    tp: int | None = Field(None, ge=1, le=MAX_COUNT, description="shares of the operators; what is left if left out")
    cp: int = Field(1, ge=1, le=MAX_COUNT, description="shares of the tokens")
    consecutive: bool = Field(True, description="whether arrays that share an operator are neighbours")
    degrees: tuple[DegreesFile, ...] = Field((), description="of each layer, where they differ")


class PipelineFile(Section):
    """The schema of a pipeline: stages that a share of the batch goes through."""

    stages: tuple[StageFile, ...] = Field(description="in the order of their layers")


class PlanFile(Section):
    """The schema of a plan file in pe-sim's own form."""

    schema_version: Literal[1] = Field(1, description="of this schema")
    name: str | None = Field(None, description="what reports call it; the file's stem if left out")
    dp: int = Field(1, ge=1, le=MAX_COUNT, description="shares of the batch")
    tp: int = Field(1, ge=1, le=MAX_COUNT, description="shares of the operators")
    pp: int = Field(1, ge=1, le=MAX_COUNT, description="stages of layers")
    cp: int = Field(1, ge=1, le=MAX_COUNT, description="shares of the tokens")
    partition: Partition = Field("uniform", description="a method, or pp + 1 bounds from 0 to the number of layers")
    microbatches: int | None = Field(None, ge=1, le=MAX_COUNT, description="parts a step goes through the stages in")
    layers: tuple[DegreesFile, ...] = Field((), description="degrees of each layer, in place of dp, tp and cp")
    head: HeadFile | None = Field(None, description="degrees of the LM head; as the last layer if left out")
    pipelines: tuple[PipelineFile, ...] = Field((), description="stages with their arrays, in place of the degrees")
    overlap: int | None = Field(None, ge=0, le=3, description="the machine model's overlap level")
    matrices: Matrices = Field(default_factory=dict, description="row or col by operator")
    split_vocabulary: bool = Field(True, description="whether arrays that share operators share the LM head")
    unused_arrays: Ranks = Field((), description="ranks that take no part")
    num_layers: int | None = Field(None, ge=1, le=MAX_COUNT, description="layers it was made for; any if left out")


def is_plan_file(raw: Mapping[str, object]) -> bool:
    """Whether the mapping has a key of pe-sim's own form."""
    return any(key in raw for key in PlanFile.model_fields)


def read_plan_file(raw: Mapping[str, object], name: str = "plan") -> ParallelPlan:
    """The plan that a mapping in pe-sim's own form describes.

    Args:
        raw: the mapping of the file.
        name: name of the plan if the file has none.

    Raises:
        InputError: unknown keys, wrong types or values (several faults in one message), or parts that do not agree.
    """
    file = validate(PlanFile, {key: _with_tuples(value) for key, value in raw.items()}, None)
    return ParallelPlan(
        name=file.name or name,
        dp=file.dp,
        tp=file.tp,
        pp=file.pp,
        cp=file.cp,
        partition=file.partition,
        microbatches=file.microbatches,
        layers=_expand(file.layers),
        head=None if file.head is None else file.head.shares,
        pipelines=tuple(_pipeline(pipeline) for pipeline in file.pipelines),
        overlap=file.overlap,
        matrices=tuple(file.matrices.items()),
        split_vocabulary=file.split_vocabulary,
        unused=file.unused_arrays,
        num_layers=file.num_layers,
    )


def _with_tuples(value: object) -> object:
    """The value with lists as tuples, which strict schemas require."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value


def _expand(entries: Sequence[DegreesFile]) -> tuple[Degrees, ...]:
    return tuple(degrees for entry in entries for degrees in entry.degrees())


def _pipeline(pipeline: PipelineFile) -> PipelinePlan:
    stages: list[StagePlan] = []
    first = 0
    for item in pipeline.stages:
        begin, end = item.layers if isinstance(item.layers, tuple) else (first, first + item.layers)
        stages.append(StagePlan(item.arrays, begin, end - begin, _stage_degrees(item, end - begin)))
        first = end
    return PipelinePlan(tuple(stages))


def _stage_degrees(item: StageFile, num_layers: int) -> tuple[Degrees, ...]:
    if item.degrees:
        return _expand(item.degrees)
    tp = item.tp or max(1, len(item.arrays) // (item.dp * item.cp))
    return (Degrees(item.dp, item.cp, tp, item.consecutive),) * num_layers


def plan_to_dict(plan: ParallelPlan) -> dict[str, object]:
    """The plan in pe-sim's own form, JSON-ready; `load_plan` of it gives an equal plan but for `source`."""
    partition = list(plan.partition) if isinstance(plan.partition, tuple) else plan.partition
    optional = {
        "microbatches": plan.microbatches,
        "layers": _degrees_list(plan.layers),
        "head": plan.head and _degrees_dict(plan.head),
        "pipelines": [{"stages": [_stage_dict(item) for item in pipe.stages]} for pipe in plan.pipelines],
        "overlap": plan.overlap,
        "matrices": dict(plan.matrices),
        "unused_arrays": list(plan.unused),
        "num_layers": plan.num_layers,
    }
    degrees = {} if plan.pipelines else {"dp": plan.dp, "tp": plan.tp, "pp": plan.pp, "cp": plan.cp}
    return {
        "schema_version": 1,
        "name": plan.name,
        **degrees,
        "partition": partition,
        "split_vocabulary": plan.split_vocabulary,
        **{key: value for key, value in optional.items() if value is not None and value not in ([], {})},
    }


def _degrees_dict(degrees: Degrees) -> dict[str, object]:
    values: dict[str, object] = {"dp": degrees.dp, "tp": degrees.tp, "cp": degrees.cp}
    return values if degrees.consecutive else {**values, "consecutive": False}


def _degrees_list(layers: Sequence[Degrees]) -> list[dict[str, object]]:
    runs = [(degrees, len(list(run))) for degrees, run in groupby(layers)]
    return [{**_degrees_dict(degrees), "times": times} for degrees, times in runs]


def _stage_dict(item: StagePlan) -> dict[str, object]:
    bounds = [item.first_layer, item.first_layer + item.num_layers]
    values: dict[str, object] = {"arrays": list(item.arrays), "layers": bounds}
    if len(set(item.degrees)) == 1:
        return {**values, **_degrees_dict(item.degrees[0])}
    return {**values, "degrees": _degrees_list(item.degrees)}
