"""What grows with what: measures the curves of the page, section by section."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.curve import Curve, Series
from benchmarks.step import CONTEXT_LEN, MODEL, WORKFLOW, Situation, StepTimes, time_step
from benchmarks.sweeps import (
    GENERATION_ARRAY,
    GENERATION_MODEL,
    GENERATION_WORKFLOWS,
    PROMPT_LEN,
    generation_seconds,
)
from pe_sim.api import load_array, load_model, load_workflow
from pe_sim.config.step import Decode, Prefill

REPEATS = 11
PASSES_LIMIT = 1.0  # seconds for the passes of a point that the fast engine goes event by event
RATIO = ("event engine", "fast engine")
ARRAY = "bus-tree-256"
FEW_LAYERS = 8  # where layers are not the question: the event engine's time is proportional to them
POSITIONS = 2**17
BATCH = 64

NUM_PES = (64, 128, 256, 512, 1024, 2048, 4096)
LAYERS = (8, 16, 32, 64, 128)
PROMPTS = (16, 128, 1024, 8192, 65536)
CONTEXTS = (16, 128, 1024, 8192, 65536)
BATCHES = (1, 4, 16, 64, 256)
GROUPS = (1, 2, 4, 8, 16, 32, 64)
OUTPUTS = (2, 8, 32, 128, 512, 2048)
# The reference is asked up to here: a point takes up to two seconds, all of them together less than ten.
EVENT_NUM_PES, EVENT_LAYERS = 1024, 64


@dataclass(frozen=True, slots=True)
class Section:
    """A picture with its tables: `file` without a suffix; `what` is drawn, and `why` it grows so."""

    file: str
    heading: str
    what: str
    why: str
    curves: tuple[Curve, ...]
    ratio: tuple[str, str] | None = RATIO


def step_curve(
    title: str,
    quantity: str,
    unit: str,
    points: Sequence[int],
    situation: Callable[[int], Situation],
    event_up_to: int | None = None,
    repeats: int = REPEATS,
) -> Curve:
    """Every part of a step against what `situation` makes of a point.

    The fastest pass counts: what else the machine does only ever adds, and growth is to show, not that.
    """
    times: list[StepTimes] = []
    for x in points:
        print(f"  {title}: {x:,}", file=sys.stderr, flush=True)
        asked = event_up_to is None or x <= event_up_to
        times.append(time_step(situation(x), repeats, event_repeats=int(asked), limit=PASSES_LIMIT, of_passes=min))
    marked = tuple(not entry.in_one_pass for entry in times)
    return Curve(
        title,
        quantity,
        unit,
        tuple(points),
        (
            Series("place", tuple(entry.place for entry in times)),
            Series("lower", tuple(entry.lower for entry in times)),
            Series("fast engine", tuple(entry.fast for entry in times), marked),
            Series("`simulate`", tuple(entry.simulate for entry in times), marked),
            Series("event engine", tuple(entry.event for entry in times)),
        ),
    )


def pes_section() -> Section:
    """Against the number of PEs."""
    model, step, workflow = load_model(MODEL), Decode(1, CONTEXT_LEN), load_workflow(WORKFLOW)

    def situation(num_pes: int) -> Situation:
        return Situation(model, load_array(ARRAY, {"num_pes": num_pes}), step, workflow)

    return Section(
        "pes",
        "Number of PEs",
        f"One decode step of {MODEL} at a context of {CONTEXT_LEN} under {WORKFLOW}, on {ARRAY} with other numbers of"
        " PEs.",
        "A stage is a few operations on arrays of one entry a PE, and NumPy's cost of starting an operation is that of"
        " some thousand entries: the curves bend upwards only where N reaches those. The event engine has an event for"
        " each operator of each PE.",
        (step_curve("PEs", "the number of PEs", "", NUM_PES, situation, EVENT_NUM_PES),),
    )


def layers_section() -> Section:
    """Against the number of layers."""
    array, step, workflow = load_array(ARRAY), Decode(1, CONTEXT_LEN), load_workflow(WORKFLOW)

    def situation(num_layers: int) -> Situation:
        return Situation(load_model(MODEL, {"num_layers": num_layers}), array, step, workflow)

    return Section(
        "layers",
        "Number of layers",
        f"The same step on {ARRAY}, of {MODEL} with other numbers of layers.",
        "A block is placed and lowered once for each distinct plan and entering placement, and not simulated again once"
        " the machine's state at its entry, counted from the entry, was met before: a further layer is one look-up. The"
        " event engine simulates every layer.",
        (step_curve("Layers", "the number of layers", "", LAYERS, situation, EVENT_LAYERS),),
    )


def tokens_section() -> Section:
    """Against prompt, context and batch."""
    model = load_model(MODEL, {"num_layers": FEW_LAYERS, "max_position_embeddings": POSITIONS})
    array, workflow = load_array(ARRAY), load_workflow(WORKFLOW)

    def prefill(prompt_len: int) -> Situation:
        return Situation(model, array, Prefill(1, prompt_len=prompt_len), workflow)

    def decode(context_len: int) -> Situation:
        return Situation(model, array, Decode(1, context_len), workflow)

    def batch(batch_size: int) -> Situation:
        return Situation(model, array, Decode(batch_size, CONTEXT_LEN), workflow)

    return Section(
        "tokens",
        "Tokens",
        f"Steps of {MODEL} with {FEW_LAYERS} layers (which keeps the event engine affordable) under {WORKFLOW} on"
        f" {ARRAY}: a prefill of one sequence, a decode step of one sequence, and a decode step of several at a context"
        f" of {CONTEXT_LEN}.",
        "Lengths are numbers in formulas, in either engine: neither operators nor messages become more, only longer."
        " Sequences of equal length are counted, not repeated; what remains of a batch is the list of its lengths.",
        (
            step_curve("Prefill, prompt", "the length of the prompt", "tokens", PROMPTS, prefill),
            step_curve("Decode, context", "the length of the context", "tokens", CONTEXTS, decode),
            step_curve("Decode, batch", "the number of sequences", "", BATCHES, batch),
        ),
    )


def groups_section() -> Section:
    """Against the number of groups of PEs."""
    model, array = load_model(MODEL, {"num_layers": FEW_LAYERS}), load_array(ARRAY)
    step = Decode(BATCH, CONTEXT_LEN)

    def curve(name: str) -> Curve:
        workflow = load_workflow(name)

        def situation(groups: int) -> Situation:
            return Situation(model, array, step, replace(workflow, groups=groups))

        return step_curve(name, "the number of groups", "", GROUPS, situation)

    return Section(
        "groups",
        "Groups of PEs",
        f"One decode step of {BATCH} sequences of {MODEL} with {FEW_LAYERS} layers on {ARRAY}, whose PEs are divided"
        " into groups that split the batch.",
        "Each group has sequences of its own, over which lowering sums the work of its PEs one group after the other."
        " Where the messages of one group overtake another's on the bus, one pass in program order would not be exact:"
        " the fast engine then repeats it, over a layer or over all of them, until no arrival changes. Where that does"
        " not settle it goes event by event (marked points, if there are any) and the report says so.",
        tuple(curve(name) for name in ("megatron", WORKFLOW)),
    )


def generation_section(longest: int = OUTPUTS[-1]) -> Section:
    """Whole generations against their length; `longest` is the last point."""
    outputs = (*(length for length in OUTPUTS if length < longest), longest)

    def series(name: str) -> Series:
        print(f"  generation: {name}", file=sys.stderr, flush=True)
        return Series(name, tuple(generation_seconds(name, length) for length in outputs))

    return Section(
        "generation",
        "Length of a generation",
        f"`generate`: {GENERATION_MODEL} on {GENERATION_ARRAY}, a prompt of {PROMPT_LEN} tokens and so many new ones;"
        " the prefill is included.",
        "The decode steps are placed once and simulated many at a time, over classes of PEs that have equal work: few"
        " steps cost as much as one, many their arithmetic. A step in which messages overtake one another is simulated"
        " alone.",
        (
            Curve(
                "Generation",
                "the number of new tokens",
                "",
                outputs,
                tuple(series(name) for name in GENERATION_WORKFLOWS),
            ),
        ),
        ratio=None,
    )


def sections() -> Iterator[Section]:
    """Those of steps, in the order of the page."""
    yield pes_section()
    yield layers_section()
    yield tokens_section()
    yield groups_section()
