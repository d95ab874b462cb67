"""A share of a model: some of its layers, and of each the share of the operators that one array works on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pe_sim.config.model import ModelConfig
from pe_sim.errors import InputError


@dataclass(frozen=True, slots=True)
class OperatorShare:
    """Share `index` of the `of` shares of a layer's heads and FFN columns, or of the vocabulary."""

    index: int = 0
    of: int = 1

    def part(self, size: int) -> range:
        """The units of `size` that belong to it; shares differ by at most one, lower ones get the larger."""
        base, extra = divmod(size, self.of)
        first = self.index * base + min(self.index, extra)
        return range(first, first + base + (self.index < extra))


@dataclass(frozen=True, slots=True)
class HeadShare:
    """Contiguous query heads, and the kv heads they read."""

    query: range
    kv: range


def head_share(model: ModelConfig, share: OperatorShare) -> HeadShare:
    """The heads of a share: whole kv heads with their query heads, or where shares outnumber kv heads parts of one.

    Raises:
        InputError: the heads cannot be shared out so that each share reads its kv heads evenly.
    """
    per_kv, kv_heads = model.heads_per_kv_head, model.num_kv_heads
    if share.of <= kv_heads:
        kv = share.part(kv_heads)
        return HeadShare(range(kv.start * per_kv, kv.stop * per_kv), kv)
    if share.of % kv_heads or share.of > model.num_heads:
        fitting = [ways for ways in range(1, model.num_heads + 1) if ways <= kv_heads or ways % kv_heads == 0]
        raise InputError(
            f"the heads of {model.name} cannot be shared out over {share.of} arrays",
            path="tp",
            given=share.of,
            expected=f"up to {kv_heads} (its kv heads), or a multiple of that up to {model.num_heads} (its heads)",
            hint=f"the nearest that fits is {min(fitting, key=lambda ways: abs(ways - share.of))}",
        )
    inside = share.of // kv_heads
    kv_head, index = divmod(share.index, inside)
    part = OperatorShare(index, inside).part(per_kv)
    first = kv_head * per_kv
    return HeadShare(range(first + part.start, first + part.stop), range(kv_head, kv_head + 1))


def model_share(model: ModelConfig, share: OperatorShare, num_layers: int) -> ModelConfig:
    """What `num_layers` layers of a model look like to an array that has a share of their operators.

    Raises:
        InputError: heads or FFN columns are fewer than the shares.
    """
    if share.of == 1:
        return replace(model, num_layers=num_layers)
    heads, columns = head_share(model, share), share.part(model.ffn_size)
    if not columns:
        raise InputError(
            f"the FFN of {model.name} has {model.ffn_size} columns for {share.of} arrays",
            path="tp",
            given=share.of,
            expected=f"at most {model.ffn_size}",
        )
    return replace(
        model,
        num_layers=num_layers,
        num_heads=len(heads.query),
        num_kv_heads=len(heads.kv),
        ffn_size=len(columns),
    )
