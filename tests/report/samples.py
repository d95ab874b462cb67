"""Small steps that the tests of the report share; each is simulated once a process."""

from functools import cache
from typing import Any

from pe_sim.api import simulate
from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.load import load_array
from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.mapping.workflow import WORKFLOWS as REGISTERED
from pe_sim.mapping.workflow import Workflow
from pe_sim.report.report import Report

TINY = {
    "_name_or_path": "tiny",
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "vocab_size": 128,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
}
DECODE = Decode(context_len=40)
WORKFLOWS = tuple(REGISTERED)


def array_of(num_pes: int, **overrides: Any) -> ArrayConfig:
    """The preset of 64 PEs with another number of them; `__` in a keyword stands for the path's dot."""
    return load_array("bus-tree-64", {"num_pes": num_pes, **{k.replace("__", "."): v for k, v in overrides.items()}})


def simulate_tiny(
    workflow: str | Workflow, num_pes: int, step: Decode | Prefill = DECODE, engine: str = "fast", **overrides: Any
) -> Report:
    """A step of the tiny model, simulated anew."""
    return simulate(load_model(TINY), array_of(num_pes, **overrides), step, workflow, engine, allow_overflow=True)


GRAPHS = ("hier-bus", "h-tree", "fat-tree", "line", "ring", "mesh", "torus", "hypercube", "butterfly", "crossbar")


def simulate_on(
    kind: str,
    num_pes: int,
    workflow: str = "workflow-1",
    step: Decode | Prefill = DECODE,
    engine: str = "fast",
    **overrides: Any,
) -> Report:
    """A step of the tiny model on one of `GRAPHS`, simulated anew; clusters are of four PEs."""
    clusters = {"network.cluster_pes": 4} if kind == "hier-bus" else {}
    changed = {"num_pes": num_pes, **clusters, **{k.replace("__", "."): v for k, v in overrides.items()}}
    return simulate(load_model(TINY), load_array(f"{kind}-256", changed), step, workflow, engine, allow_overflow=True)


@cache
def tiny_on(kind: str, workflow: str = "workflow-1", num_pes: int = 16) -> Report:
    """A decode step of the tiny model on one of `GRAPHS`."""
    return simulate_on(kind, num_pes, workflow)


@cache
def tiny(workflow: str = "workflow-1", num_pes: int = 8) -> Report:
    """A decode step of the tiny model."""
    return simulate_tiny(workflow, num_pes)
