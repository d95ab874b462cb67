"""What the tests of several arrays share: tiny models, small systems, and one step under a plan proven."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.step import Decode, Step
from pe_sim.config.systems.load import load_system, system_of_one
from pe_sim.config.systems.system import SystemConfig
from pe_sim.mapping.workflow import WORKFLOWS, Workflow
from pe_sim.numeric.reference import run_reference
from pe_sim.numeric.results import Execution
from pe_sim.numeric.state_dict import random_weights, read_weights
from pe_sim.numeric.weights import ModelWeights
from pe_sim.schedule.system import ArrayPass
from pe_sim.systems.execution import execute_script
from pe_sim.systems.pass_cache import Shop
from pe_sim.systems.script import Script
from pe_sim.systems.simulation import scripted
from pe_sim.systems.timing import TimedScript, Timer
from tests.helpers import small_array
from tests.network.networks import array_of
from tests.numeric.cases import bert, gpt2, llama, tokens_of

TOLERANCE = 1e-4  # of the largest element of the reference, or of 1 where that is smaller
LINK = {"bytes_per_cycle": 4, "latency_cycles": 7, "overhead_cycles": 2}
LINK_KINDS = ("ring", "line", "mesh", "torus", "crossbar", "fat_tree", "h_tree")
# A pipeline inside an array is refused in a plan of several.
SHARED_WORKFLOWS = tuple(name for name, workflow in WORKFLOWS.items() if not workflow.pipelined)

MODELS: dict[str, ModelConfig] = {
    # 6 kv heads, so that they go over 1, 2, 3 and 6 arrays evenly, and over 4 and 5 not.
    "llama": llama(num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=6, head_dim=4),
    # Shares outnumber kv heads from 3 on: 4 and 8 cut inside one.
    "gqa": llama(num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2, head_dim=4),
    # Nothing divides: 5 kv heads, 39 columns, 41 words.
    "uneven": llama(
        num_hidden_layers=3, num_attention_heads=10, num_key_value_heads=5, head_dim=4, intermediate_size=39
    ),
    "bias": llama(
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        head_dim=4,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
    ),
    # As Qwen2: biases on q, k and v alone.
    "qkv-bias": replace(llama(num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4), qkv_bias=True),
    "gpt2": gpt2(n_layer=4, n_head=6),
    "bert": bert(num_hidden_layers=4, num_attention_heads=6),
}


@cache
def arrays_like(num_pes: int = 4, dead_pes: tuple[int, ...] = (), kind: str = "") -> ArrayConfig:
    """A small array; equal arguments give one object."""
    if kind:
        return array_of(kind, num_pes)
    return small_array(num_pes, {"dead_pes": list(dead_pes)} if dead_pes else None)


@cache
def _links(kind: str, count: int) -> SystemConfig:
    section = {"kind": kind, "link": LINK, **({"growth": 2.0} if kind == "fat_tree" else {})}
    return load_system(
        {
            "schema_version": 1,
            "name": f"{kind} of {count}",
            "arrays": [{"array": "bus-tree-64", "count": count}],
            "links": section,
            "floorplan": {"array_pitch_mm": 50.0, "mm_per_cycle": 10.0},
        }
    )


def system_of(arrays: tuple[ArrayConfig, ...], kind: str = "ring", dead: tuple[int, ...] = ()) -> SystemConfig:
    """These arrays joined by links of a kind."""
    if len(arrays) == 1:
        return system_of_one(arrays[0])
    return replace(_links(kind, len(arrays)), arrays=arrays, dead_arrays=dead)


def equal_arrays(count: int, kind: str = "ring", num_pes: int = 4, dead: tuple[int, ...] = ()) -> SystemConfig:
    """So many small arrays that are one object."""
    return system_of((arrays_like(num_pes),) * count, kind, dead)


def of(workflow: str | Workflow) -> Workflow:
    """The workflow of that name."""
    return WORKFLOWS[workflow] if isinstance(workflow, str) else workflow


def script_of(
    model: ModelConfig, system: SystemConfig, plan: ParallelPlan, step: Step, workflow: str | Workflow = "workflow-1"
) -> tuple[Shop, Script]:
    """The script of a step under a plan."""
    return scripted(model, system, step, plan, of(workflow))


def timed_of(
    model: ModelConfig,
    system: SystemConfig,
    plan: ParallelPlan,
    step: Step,
    workflow: str | Workflow = "workflow-1",
    engine: str = "fast",
) -> TimedScript:
    """The program of a step under a plan."""
    return Timer(engine).timed(script_of(model, system, plan, step, workflow)[1])


def counts_of(timed: TimedScript) -> dict[str, tuple[int, int]]:
    """{tag: (messages, bytes)} of all passes and exchanges of a program."""
    total: dict[str, list[int]] = {}

    def add(tag: str, messages: int, num_bytes: int) -> None:
        own = total.setdefault(tag, [0, 0])
        own[0] += messages
        own[1] += num_bytes

    for task in timed.program.tasks:
        if isinstance(task, ArrayPass):
            for tag, use in timed.works[task.work].trace.traffic.items():
                add(tag, use.messages, use.bytes)
        else:
            for leg in timed.program.operations[task.operation].legs:
                for tag, messages, num_bytes in leg.counted:
                    add(tag, messages, num_bytes)
    return {tag: (own[0], own[1]) for tag, own in total.items() if own[0]}


@dataclass(frozen=True)
class Proof:
    """An execution beside the reference, and its traffic beside the simulated one."""

    error: float
    tokens_agree: bool
    executed: dict[str, tuple[int, int]]
    timed: dict[str, tuple[int, int]]

    @property
    def is_the_model(self) -> bool:
        """Whether the numbers are right."""
        return self.error <= TOLERANCE and self.tokens_agree

    @property
    def holds(self) -> bool:
        """Whether the numbers are right and the traffic is what was timed."""
        return self.is_the_model and self.executed == self.timed


@cache
def weights_of(model: ModelConfig, seed: int = 1) -> ModelWeights:
    """Random weights; every bias and norm too."""
    return read_weights(model, random_weights(model, seed))


def compared(
    model: ModelConfig, step: Step, done: Execution, weights: ModelWeights, tokens: list
) -> tuple[float, bool]:
    """(largest error, whether the greedy tokens agree) of an execution against the unsharded reference."""
    wholes = run_reference(model, weights, tokens)
    error, agree = 0.0, True
    for at, (whole, span) in enumerate(zip(wholes, step.sequences, strict=True)):
        count = done.row_counts[at]
        every = isinstance(step, Decode) or step.logits == "all" or not model.has_kv_cache
        assert count == (span.new_len if every else 1)
        expected = whole.output[len(whole.output) - count :]
        own = done.logits[at, :count]
        error = max(error, _relative(own, expected))
        if whole.pooled is not None:
            error = max(error, _relative(done.pooled[at], whole.pooled))
        if done.best_tokens is not None:
            chosen = expected[np.arange(count), done.best_tokens[at, :count]]
            # Equal up to rounding is a tie.
            agree &= bool((chosen >= expected.max(axis=1) - TOLERANCE * max(1, np.abs(expected).max())).all())
            agree &= bool((done.best_tokens[at, :count] == own.argmax(axis=1)).all())
    return error, agree


def _relative(given: np.ndarray, expected: np.ndarray) -> float:
    if given.shape != expected.shape or not np.isfinite(given).all():
        return np.inf
    return float(np.abs(given - expected).max() / max(1, np.abs(expected).max()))


def executed(script: Script, *, seed: int = 1, dtype: str = "float32") -> tuple[Execution, float, bool]:
    """An execution with random weights and tokens, its error, and whether its tokens are right."""
    weights, tokens = weights_of(script.model, seed), tokens_of(script.model, script.step, seed)
    done = execute_script(script, weights, tokens, dtype=dtype)
    return done, *compared(script.model, script.step, done, weights, tokens)


def prove(
    model: ModelConfig,
    system: SystemConfig,
    plan: ParallelPlan,
    step: Step,
    workflow: str | Workflow = "workflow-1",
    *,
    seed: int = 1,
) -> Proof:
    """The proof of one step under a plan."""
    timed = timed_of(model, system, plan, step, workflow)
    done, error, agree = executed(timed.script, seed=seed)
    traffic = {tag: (use.messages, use.bytes) for tag, use in done.traffic.items() if use.messages}
    return Proof(error, agree, traffic, counts_of(timed))
