"""The registry of model families: one builder per family turns a config and a step into an operator graph."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Decode, Prefill
from pe_sim.errors import InputError, did_you_mean
from pe_sim.graph.bert import build_bert
from pe_sim.graph.gpt2 import build_gpt2
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.llama import build_llama
from pe_sim.registry import Registry

Step = Decode | Prefill
Builder = Callable[[ModelConfig, Step], OperatorGraph]

FAMILIES: Registry[Builder] = Registry(
    "pe_sim.models",
    {"bert": build_bert, "gpt2": build_gpt2, "llama": build_llama},
    take=attrgetter("build_graph"),
)


def build_graph(model: ModelConfig, step: Step) -> OperatorGraph:
    """The operator graph of `step` on `model`.

    Raises:
        InputError: no builder is registered for the model's family, or the step does not fit the model.
    """
    if not isinstance(step, Decode | Prefill):
        raise InputError(
            "this is no step", path="step", given=step, expected="pe_sim.Decode(...) or pe_sim.Prefill(...)"
        )
    builder = FAMILIES.get(model.family)
    if builder is None:
        raise InputError(
            f"models of family {model.family!r} load, but steps of them cannot be simulated",
            source=model.name,
            expected="a family with a graph builder: " + ", ".join(sorted(FAMILIES)),
            hint=did_you_mean(model.family, FAMILIES),
        )
    step.check_against(model)
    return builder(model, step)
