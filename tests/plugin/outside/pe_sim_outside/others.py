"""A collective algorithm, a distribution, dialects of plans and of models, and an engine."""

from dataclasses import dataclass

import numpy as np

from pe_sim.config.files.foreign import Dialect
from pe_sim.config.models.hf import read_hf
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.engine.engines import fast
from pe_sim.errors import InputError
from pe_sim.graph.operators import Linear
from pe_sim.mapping.distributions import Col, Row
from pe_sim.network.collectives.programs import Algorithm
from pe_sim.network.routing.flows import NONE
from pe_sim.network.routing.hops import HopBuilder, Program


def by_lowest(interconnect, pattern):
    """Hub to the lowest PE of its scope, stored, and from there to the others."""
    flows, builder, num_pes = interconnect.flows, HopBuilder(), interconnect.topology.num_pes
    for scope in np.flatnonzero(pattern.sends).tolist():
        pes, hub = pattern.pes(scope), int(pattern.hub[scope])
        last = flows.multicast(builder, hub, pes[:1], scope, scope, pes[:1])
        others, wave = pes[1:], len(interconnect.topology.nodes)
        if len(others):
            flows.multicast(builder, int(pes[0]), others, scope, NONE, others, wave=wave, after=last)
    return Program.whole(builder.build(pattern.num_scopes, num_pes, pattern.num_scopes), pattern.first_pe)


BY_LOWEST = Algorithm("by_lowest", by_lowest)


@dataclass(frozen=True, slots=True)
class LongSide:
    name: str = "long-side"
    summary: str = "outputs of W sharded where it widens, inputs where it narrows"

    def applies_to(self, operator):
        return isinstance(operator, Linear)

    def place(self, operator, attention, head_group_size):
        chosen = Row() if operator.out_size >= operator.in_size else Col()
        return chosen.place(operator, attention, head_group_size)


LONG_SIDE = LongSide()


def _is_list(raw):
    return "tensor" in raw


def _read_list(raw, name, num_arrays):
    for key in raw:
        if key not in ("tensor", "dp"):
            raise InputError("unknown key", path=key)
    return ParallelPlan(name=name, tp=raw["tensor"], dp=raw.get("dp", 1))


TENSOR_LIST = Dialect("tensor-list", "tensor, and dp if wanted", _is_list, _read_list)


def _is_short(raw):
    return set(raw) == {"family", "width", "depth"}


def _read_short(raw, name, vocab_size):
    sizes = {"hidden_size": raw["width"], "intermediate_size": 4 * raw["width"], "num_hidden_layers": raw["depth"]}
    heads = {"num_attention_heads": raw["width"] // 8, "vocab_size": vocab_size or 64}
    return read_hf({"model_type": raw["family"], **sizes, **heads}, name)


SHORT_NAMES = Dialect("short-names", "family, width and depth", _is_short, _read_short)


def patient(schedule, check=None):
    return fast(schedule, check)
