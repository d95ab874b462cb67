"""How far a result is to be trusted: takes what was simulated, gives what the comparison with the RTL says of it.

Loaded at the first question for an envelope, not with the reports: simulating does not need it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field

from pe_sim.config.arrays.array import ArrayConfig, Memory
from pe_sim.config.dtypes import Dtype
from pe_sim.config.files.schema import Section
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Decode, Prefill
from pe_sim.mapping.workflow import WORKFLOWS, Workflow
from pe_sim.units import ceil_div

Level = Literal["exact", "within", "outside"]

AGAINST: Final = "RTL"
_LEVELS: Final[tuple[Level, ...]] = ("exact", "within", "outside")


@dataclass(frozen=True, slots=True)
class Envelope:
    """How far a result's cycles are from what the RTL takes.

    Args:
        level: exact, within (a percentage of the RTL's cycles), or outside what was compared.
        percent: the greatest difference that was found where this was compared; None if it was not.
        reasons: what puts it outside, each with what was compared; empty where nothing does.
    """

    level: Level
    percent: float | None
    reasons: tuple[str, ...] = ()

    def one_line(self) -> str:
        """The envelope in words, such as "within 0.5 % against RTL"; the percentage is rounded up."""
        if self.percent is None:
            return f"outside what was compared with {AGAINST}: {'; '.join(self.reasons)}"
        return f"{self.level if self.level == 'exact' else f'within {_percent(self.percent)}'} against {AGAINST}"

    def to_dict(self) -> dict[str, Any]:
        """The envelope as a JSON-ready dict."""
        return {
            "against": AGAINST,
            "envelope": self.level,
            "percent": self.percent,
            "outside": list(self.reasons),
        }


def collective_envelope(kind: str, array: ArrayConfig, compared: Compared | None = None) -> Envelope:
    """The envelope of one collective alone on the whole array, whatever its bytes."""
    known = compared or packaged()
    own = known.collective
    reasons = (
        *_unless_listed(kind, own.kinds, kind),
        *_network(array, known, own.arities),
        *_unless_between(array.num_pes, own.num_pes),
        *_dead_pes(array),
        *_unless_listed(array.overlap, own.overlaps, f"overlap {array.overlap}"),
    )
    return _judged(reasons, own.worst_percent)


def gemm_envelope(
    array: ArrayConfig, rows: int, inner: int, outer: int, cycles: int, compared: Compared | None = None
) -> Envelope:
    """The envelope of one GEMM alone on one PE, which took `cycles`; the interconnect has no part in it."""
    known = compared or packaged()
    own, memory = known.gemm, array.pe.memory
    reasons = (
        *_memory(array, known),
        *_scales("weights", array.dtypes.weight),
        *_unless_listed(array.overlap, own.overlaps, f"overlap {array.overlap}"),
    )
    if reasons or not isinstance(memory, Memory):
        return _judged(reasons, own.worst_percent_edge_tiles)
    if _is_whole_tiled(array, memory, inner, outer):
        return _judged((), own.worst_percent_whole_tiles)
    may_cost, worst = 100 * _edge_cycles(array, memory, rows, inner, outer) / cycles, own.worst_percent_edge_tiles
    if may_cost > worst:
        reasons = (f"edge tiles that may cost {_percent(may_cost)} (compared: up to {_percent(worst)})",)
    return _judged(reasons, worst)


def compared_phase(step: Decode | Prefill) -> str:
    """The phase of a step as `compared.json` names it: "causal prefill" where scores above the diagonal are skipped."""
    masked = isinstance(step, Prefill) and step.causal == "skip" and max(step.prompt_len) > 1
    return "causal prefill" if masked else step.phase


def step_envelope(
    model: ModelConfig,
    phase: str,
    batch_size: int,
    array: ArrayConfig,
    workflow: Workflow,
    compared: Compared | None = None,
) -> Envelope:
    """The envelope of a step of a model, whatever its sizes and number of layers.

    Args:
        phase: as `compared_phase` gives it.
        compared: what was compared with the RTL; None: what the package holds.
    """
    known = compared or packaged()
    own = known.step
    groups, sequences = workflow.groups, "sequence" if batch_size == 1 else "sequences"
    reasons = (
        *_unless_listed(model.family, own.families, f"a model of family {model.family}"),
        *_unless_listed(phase, own.phases, phase),
        *_unless_listed(batch_size, own.batch_sizes, f"a batch of {batch_size:,} {sequences}"),
        *_workflow(workflow, own.workflows),
        *_unless_listed(groups, own.groups, f"{groups} {'group' if groups == 1 else 'groups'} of PEs"),
        *_network(array, known, own.arities),
        *_unless_between(array.num_pes, own.num_pes),
        *_dead_pes(array),
        *_unless_listed(array.overlap, own.overlaps, f"overlap {array.overlap}"),
        *_memory(array, known),
        *_tiles(array),
        *_shared_heads(model, array, workflow),
        *_scales("weights", array.dtypes.weight),
        *_scales("a cache", array.dtypes.kv_cache),
    )
    return _judged(reasons, own.worst_percent)


def widest(envelopes: Iterable[Envelope]) -> Envelope:
    """The envelope of several results (at least one) together: that of the least sure one, with the reasons of all."""
    found = list(envelopes)
    widest_one = max(found, key=lambda envelope: (_LEVELS.index(envelope.level), envelope.percent or 0.0))
    return replace(widest_one, reasons=tuple(dict.fromkeys(reason for each in found for reason in each.reasons)))


def _judged(reasons: tuple[str, ...], worst_percent: float) -> Envelope:
    if reasons:
        return Envelope("outside", None, reasons)
    return Envelope("within" if worst_percent > 0 else "exact", worst_percent)


def _network(array: ArrayConfig, known: Compared, arities: Sequence[int]) -> Iterator[str]:
    network, machine = array.network, known.machine
    other = tuple(_unless_listed(network.kind, machine.networks, f"an interconnect of kind {network.kind}"))
    yield from other
    if other:
        return  # what follows is said of kinds that were compared
    arity = network.arity
    yield from _unless_listed(arity, arities, f"a tree of arity {arity}")
    arbitration = network.arbitration
    yield from _unless_listed(arbitration, machine.arbitrations, f"{arbitration} arbitration")
    if array.bus_tree.bus.burst_bytes is not None:
        yield f"bursts of {array.bus_tree.bus.burst_bytes:,} bytes (compared: whole messages)"
    if array.bus_tree.tree.downlink:
        yield "a tree with a downlink (compared: without)"


def _memory(array: ArrayConfig, known: Compared) -> Iterator[str]:
    kind = "flat" if isinstance(array.pe.memory, Memory) else "dram_bank"
    yield from _unless_listed(kind, known.machine.memories, f"local memory of kind {kind}")


def _dead_pes(array: ArrayConfig) -> Iterator[str]:
    if array.dead_pes:
        yield f"{len(array.dead_pes):,} dead {'PE' if len(array.dead_pes) == 1 else 'PEs'} (compared: none)"


def _scales(what: str, dtype: Dtype) -> Iterator[str]:
    """Yields a reason if elements carry scales; their width only scales bytes, as sizes do, and is not judged."""
    if dtype.group_size is not None:
        yield f"{what} with scales (compared: without)"


def _shared_heads(model: ModelConfig, array: ArrayConfig, workflow: Workflow) -> Iterator[str]:
    """Yields a reason if PEs outnumber heads: scores are then reduced within groups of PEs, not compared in a step."""
    by_head = any(plan.attention == "head" for plan in workflow.pattern)
    if by_head and array.num_pes // workflow.groups > model.num_heads:
        yield f"{model.num_heads} heads on {array.num_pes // workflow.groups} PEs (compared: whole heads on each)"


def _tiles(array: ArrayConfig) -> Iterator[str]:
    unit, memory = array.pe.matrix, array.pe.memory
    tile_bytes = array.dtypes.weight.num_bytes(unit.outputs * unit.depth)
    if isinstance(memory, Memory) and tile_bytes % memory.bytes_per_cycle:
        yield f"tiles of {tile_bytes:,} bytes, the memory's words {memory.bytes_per_cycle:,} (compared: whole words)"


def _workflow(workflow: Workflow, names: Sequence[str]) -> Iterator[str]:
    """Yields a reason if no compared workflow does the same; names do not matter, groups are judged on their own."""
    if not any(_plan_of(workflow) == _plan_of(WORKFLOWS[name]) for name in names if name in WORKFLOWS):
        which = f"another workflow called {workflow.name}" if workflow.name in names else f"workflow {workflow.name}"
        yield f"{which} (compared: {_listed(names)})"


def _plan_of(workflow: Workflow) -> Workflow:
    return replace(workflow, name="", summary="", groups=1)


def _is_whole_tiled(array: ArrayConfig, memory: Memory, inner: int, outer: int) -> bool:
    unit = array.pe.matrix
    return outer % unit.outputs == 0 and inner % unit.depth == 0 and not any(_tiles(array))


def _edge_cycles(array: ArrayConfig, memory: Memory, rows: int, inner: int, outer: int) -> int:
    """Upper bound, in cycles, on what a machine that reads tile by tile in whole words takes beyond the formula.

    Every tile rounds its words up, and an edge tile's short load does not hide the computation that a full one's does.
    """
    from pe_sim.schedule.matrix import rows_per_pass

    unit, weight = array.pe.matrix, array.dtypes.weight
    whole_words = ceil_div(int(weight.matrix_bytes(outer, inner)), memory.bytes_per_cycle)
    tiles = [
        (outer_count * inner_count, ceil_div(int(weight.num_bytes(outputs * depth)), memory.bytes_per_cycle))
        for outputs, outer_count in ((unit.outputs, outer // unit.outputs), (outer % unit.outputs, 1))
        for depth, inner_count in ((unit.depth, inner // unit.depth), (inner % unit.depth, 1))
        if outputs and depth
    ]
    num_tiles = sum(count for count, _ in tiles)

    def of_pass(pass_rows: int) -> int:
        if array.overlap == 0:
            return sum(count * words for count, words in tiles) - whole_words
        one_by_one = sum(count * max(words, pass_rows) for count, words in tiles)
        return one_by_one - max(whole_words, num_tiles * pass_rows)

    most = int(rows_per_pass(array, np.array([inner]), np.array([outer]))[0])
    full_passes = ceil_div(rows, most) - 1
    return max(0, full_passes * of_pass(most) + of_pass(rows - full_passes * most))


def _unless_listed(value: object, listed: Sequence[object], what: str) -> Iterator[str]:
    if value not in listed:
        yield f"{what} (compared: {_listed(listed)})"


def _unless_between(num_pes: int, listed: Sequence[int]) -> Iterator[str]:
    """Yields a reason if a number of PEs is not between the least and the greatest that were compared."""
    least, most = min(listed), max(listed)
    if not least <= num_pes <= most:
        span = f"{least:,} to {most:,}" if most > least else f"{least:,}"
        yield f"{num_pes:,} {'PE' if num_pes == 1 else 'PEs'} (compared: {span})"


def _listed(values: Sequence[object]) -> str:
    *others, last = (f"{value:,}" if isinstance(value, int) else str(value) for value in values)
    return f"{', '.join(others)} and {last}" if others else last


def _percent(percent: float) -> str:
    """A percentage as text, rounded up to two places so that the bound still holds."""
    return f"{math.ceil(percent * 100 - 1e-6) / 100:.10g} %"


# ---- What was compared with the RTL: takes `compared.json`, which `make accuracy` writes, gives its checked sections.


PACKAGED: Final = Path(__file__).with_name("compared.json")

Numbers = Annotated[tuple[int, ...], Field(min_length=1)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


class ComparedMachine(Section):
    """The machine that the RTL describes; it has no bursts and no downlink of the tree."""

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
    """The comparison with the RTL that a file tells of.

    Raises:
        OSError: the file cannot be read.
        pydantic.ValidationError: it is not of this schema.
    """
    return Compared.model_validate_json(path.read_bytes())


@cache
def packaged() -> Compared:
    """The comparison with the RTL that the package holds, as of this version."""
    return read_compared(PACKAGED)
