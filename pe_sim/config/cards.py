"""Models and arrays as a notebook shows them: takes a config, gives HTML."""

from __future__ import annotations

from itertools import groupby

from pe_sim.config.array import ArrayConfig
from pe_sim.config.arrays import describe_network_of, describe_rate
from pe_sim.config.dead_pes import describe_dead_pes
from pe_sim.config.model import ModelConfig
from pe_sim.config.network_dict import describe_links
from pe_sim.config.system import SystemConfig
from pe_sim.notebook import card
from pe_sim.units import format_bytes, format_count


def model_card(model: ModelConfig) -> str:
    """Its size, its shape, and what a token of context costs."""
    heads = f"{model.num_heads} of {model.head_dim}"
    if model.num_kv_heads != model.num_heads:
        heads += f", sharing {model.num_kv_heads} kv heads"
    facts = [
        ("family", model.family),
        ("parameters", format_count(model.num_parameters)),
        ("layers", f"{model.num_layers}, hidden {model.hidden_size:,}, FFN {model.ffn_size:,}"),
        ("heads", heads),
        ("vocabulary", f"{model.vocab_size:,}"),
        ("positions", f"{model.max_position_embeddings:,}"),
    ]
    if model.has_kv_cache:
        facts.append(("KV cache", f"{format_bytes(model.kv_bytes_per_token('bf16'))} a token in bf16"))
    return card(model.name, facts)


def system_card(system: SystemConfig) -> str:
    """Its arrays, their links, and what all of them hold together."""
    kinds = [(array, len(list(equal))) for array, equal in groupby(system.arrays)]
    whole = sum(array.num_pes * array.pe.memory.capacity_bytes for array in system.arrays)
    facts = [
        ("arrays", " + ".join(f"{count} x {array.name} ({array.num_pes:,} PEs)" for array, count in kinds)),
        ("clock", f"{system.clock_ghz:g} GHz"),
        ("memory in all", format_bytes(whole)),
    ]
    if system.links is not None:
        facts.append(("links", describe_links(system.links)))
    if system.dead_arrays:
        facts.append(("dead arrays", ", ".join(map(str, system.dead_arrays))))
    return card(system.name, facts)


def array_card(array: ArrayConfig) -> str:
    """Its PEs, its interconnect, its root."""
    pe, root = array.pe, array.root
    macs = pe.matrix.outputs * pe.matrix.depth
    whole = array.num_pes * pe.memory.capacity_bytes
    types = array.dtypes
    dead = f", dead: {describe_dead_pes(array.dead_pes, array.num_pes)}" if array.dead_pes else ""
    facts = [
        ("PEs", f"{array.num_pes:,} at {array.clock_ghz:g} GHz{dead}"),
        ("matrix unit", f"{pe.matrix.outputs} x {pe.matrix.depth} MACs ({macs * array.num_pes:,} in all)"),
        ("vector unit", f"{pe.vector.lanes} lanes"),
        ("memory", f"{format_bytes(pe.memory.capacity_bytes)} a PE at {describe_rate(pe.memory)}"),
        ("memory in all", format_bytes(whole)),
        ("interconnect", describe_network_of(array)),
        (
            "root",
            f"{root.vector.lanes} lanes, {format_bytes(root.memory.capacity_bytes)} at {describe_rate(root.memory)}",
        ),
        ("types", f"{types.weight.name} weights, {types.kv_cache.name} cache, {types.partial.name} partial sums"),
        ("overlap", str(array.overlap)),
        ("energy and area", array.cost_basis),
    ]
    return card(array.name, facts)
