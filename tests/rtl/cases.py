"""What is compared with the RTL, case by case, on each of the arrays that are built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from typing import Any

from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.schedule.collectives import KINDS
from tests.rtl.arrays import rtl_array
from tests.rtl.layer.layer_programs import layer_program
from tests.rtl.programs.collective_programs import collective_program
from tests.rtl.programs.contention_programs import contention_program
from tests.rtl.programs.gemm_programs import gemm_program
from tests.rtl.programs.lowering import Case
from tests.rtl.programs.tiles import MatrixCycles
from tests.rtl.programs.tree_programs import back_to_back, extremes, groups, merge_then_plain, mixed


class Kind(StrEnum):
    """What a case exercises."""

    COLLECTIVE = "collective"
    BUS = "bus contention"
    TREE = "tree contention"
    WHOLE_TILES = "GEMM, whole tiles"
    EDGE_TILES = "GEMM, edge tiles"
    STEP = "step"


@dataclass(frozen=True)
class Named:
    """A case, what a person calls it, and the array it runs on.

    Args:
        matrix: of a GEMM, what its cycles are made of.
    """

    kind: Kind
    array: str
    name: str
    case: Case
    matrix: MatrixCycles | None = field(default=None, repr=False)


TREE_PROGRAMS = (extremes, groups, back_to_back, merge_then_plain, mixed)
WHOLE_SIZES = (4, 28, 64, 252, 1000)  # bytes; of the whole, for those that `interface.md` gives so
SIZES_PER_PE = (2, 6, 34, 100)
PER_PE = ("scatter", "gather", "all-gather", "reduce-scatter", "all-to-all")
STEP_ARRAYS = ("4-quad", "8-binary", "8-ternary", "16-quad", "16-binary")
STEP_WORKFLOWS = ("workflow-1", "workflow-2", "megatron")
LAYER: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "intermediate_size": 128,
    "vocab_size": 96,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
}
GEMM_ARRAYS = ("2-binary", "4-quad", "8-binary")
ROWS, INNER, OUTER = (1, 2, 5, 16, 40), (4, 8, 64, 17, 3), (4, 16, 64, 5, 23)
OVERLAPS = (0, 1)
SEEDS = range(6)  # of programs with random data and random waits


def cases_of(array_name: str) -> Iterator[Named]:
    """All cases but those of whole steps, on one array."""
    yield from collective_cases(array_name)
    yield from contention_cases(array_name)
    if array_name in GEMM_ARRAYS:
        yield from gemm_cases(array_name)


def step_cases(array_name: str) -> Iterator[Named]:
    """Steps of a model of one layer, embedding and LM head included; nothing on arrays that steps do not run on."""
    steps = {
        "decode at 31": (load_model(LAYER), Decode(1, 31)),
        "decode at 100, 4 kv heads": (load_model({**LAYER, "num_key_value_heads": 4}), Decode(1, 100)),
        "prefill of 4": (load_model(LAYER), Prefill(1, prompt_len=4, logits="all", causal="full")),
    }
    if array_name not in STEP_ARRAYS:
        return
    for overlap, workflow, (name, (model, step)) in product(OVERLAPS, STEP_WORKFLOWS, steps.items()):
        case = layer_program(model, rtl_array(array_name, overlap), step, workflow)
        yield Named(Kind.STEP, array_name, f"{workflow}, {name}, overlap {overlap}", case)


def collective_cases(array_name: str) -> Iterator[Named]:
    """Every collective in a few sizes."""
    for overlap, kind in product(OVERLAPS, KINDS):
        for num_bytes in SIZES_PER_PE if kind in PER_PE else WHOLE_SIZES:
            name = f"{kind} of {num_bytes} B, overlap {overlap}"
            program = collective_program(kind, rtl_array(array_name, overlap), num_bytes)
            yield Named(Kind.COLLECTIVE, array_name, name, program)


def contention_cases(array_name: str, seeds: Iterable[int] = SEEDS) -> Iterator[Named]:
    """Everybody asks for the bus; reductions of groups, of all, plain ones behind softmax merges."""
    array = rtl_array(array_name)
    for seed in seeds:
        name = f"requests at once and staggered, seed {seed}"
        yield Named(Kind.BUS, array_name, name, contention_program(array, seed))
        for program in TREE_PROGRAMS:
            name = f"{program.__name__.replace('_', ' ')}, seed {seed}"
            yield Named(Kind.TREE, array_name, name, program(array, seed))


def gemm_cases(array_name: str) -> Iterator[Named]:
    """GEMV and GEMM at overlap 0 and 1."""
    for overlap, rows, inner, outer in product(OVERLAPS, ROWS, INNER, OUTER):
        array = rtl_array(array_name, overlap)
        program = gemm_program(array, rows, inner, outer)
        whole = inner % array.pe.matrix.depth == 0 and outer % array.pe.matrix.outputs == 0
        name = f"m {rows}, k {inner}, n {outer}, overlap {overlap}"
        kind = Kind.WHOLE_TILES if whole else Kind.EDGE_TILES
        yield Named(kind, array_name, name, program.case, program.cycles)
