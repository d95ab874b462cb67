"""What every array of a deployment keeps in its memories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pe_sim.config.plans.plan import Degrees, StagePlan
from pe_sim.config.step import Decode
from pe_sim.mapping.footprint import footprint
from pe_sim.report.system.metrics import ArrayHolding, Pipeline
from pe_sim.systems.deployment import Deployment, runs_of
from pe_sim.systems.microbatches import Part, Span, batch_share, offset_of, place_of
from pe_sim.systems.pass_cache import Shop


def memory_of(shop: Shop, deployment: Deployment) -> tuple[ArrayHolding, ...]:
    """What every array that takes part keeps, in order of rank."""
    found: dict[int, ArrayHolding] = {}
    for number, line in enumerate(deployment.pipelines):
        for stage, plan in enumerate(line.stages):
            for own in _of_stage(shop, deployment, line, number, stage, plan):
                before = found.get(own.rank)
                found[own.rank] = own if before is None else _together(before, own, shop.model.has_kv_cache)
    return tuple(found[rank] for rank in sorted(found))


def _of_stage(
    shop: Shop, deployment: Deployment, line: Pipeline, number: int, stage: int, plan: StagePlan
) -> Iterator[ArrayHolding]:
    runs = runs_of(plan)
    for at, (degrees, first, last) in enumerate(runs):
        opens = plan.first_layer + first == 0
        closes = stage == len(line.stages) - 1 and at == len(runs) - 1
        plans = shop.plans(plan.first_layer + first, plan.first_layer + last)
        for index, rank in enumerate(plan.arrays):
            place = place_of(degrees, index)
            lengths = _tokens(shop, line, degrees, place.batch, place.tokens)
            vocabulary = deployment.vocabulary(degrees, place.operators, shop.model) if closes else None
            placed = shop.whole(rank, place.operators, degrees.tp, lengths, plans, opens, vocabulary)
            one = footprint(placed, placed.graph.shape)
            array = shop.system.arrays[rank]
            yield ArrayHolding(
                rank,
                number,
                stage,
                one.weight_bytes_per_pe,
                one.kv_cache_bytes_per_pe if lengths else np.zeros_like(one.kv_cache_bytes_per_pe),
                one.root_bytes,
                array.pe.memory.capacity_bytes,
                array.root.memory.capacity_bytes,
            )


def _together(left: ArrayHolding, right: ArrayHolding, keeps_cache: bool) -> ArrayHolding:
    """What one array keeps for two runs of layers; an encoder has keys and values only while their layer runs."""
    add = np.add if keeps_cache else np.maximum
    return replace(
        left,
        weight_bytes_per_pe=left.weight_bytes_per_pe + right.weight_bytes_per_pe,
        kv_cache_bytes_per_pe=add(left.kv_cache_bytes_per_pe, right.kv_cache_bytes_per_pe),
        root_bytes=left.root_bytes + right.root_bytes,
    )


def _tokens(shop: Shop, line: Pipeline, degrees: Degrees, batch: int, tokens: int) -> tuple[tuple[int, int], ...]:
    """(new, cached) tokens of every sequence that an array holds when the step is done, all parts together."""
    every = [shop.step.sequences[at] for at in line.sequences]
    spans = tuple(Span(at, each.new_len, each.context_len) for at, each in zip(line.sequences, every, strict=True))
    part = Part(0, tuple(line.sequences), spans)
    lengths = []
    for span in batch_share(part, degrees.dp, batch):
        first = offset_of(span.sequence, degrees.cp, tokens)
        total = len(range(first, span.context_len + span.new_len, degrees.cp))
        if total:
            new = 1 if isinstance(shop.step, Decode) else min(span.new_len, total)
            lengths.append((new, total - new))
    return tuple(lengths)


def check_memory(held: Sequence[ArrayHolding]) -> None:
    """Raises InfeasibleError for the first array whose memories are too small."""
    for each in held:
        if each.shortage is not None:
            raise each.shortage
