"""What people call the stages of a step: takes a span and its stage, gives "layer 3 · FFN down · ..."."""

from __future__ import annotations

from typing import Final

from pe_sim.report.timeline import tag_of
from pe_sim.schedule.stages import RoutedStage, Stage, Tag, TreeStage
from pe_sim.trace import StageSpan

SEPARATOR: Final = " · "
_OPERATORS: Final = {
    "embedding": "token embedding",
    "add_position": "position embedding",
    "add_token_type": "token type embedding",
    "attention_norm": "attention norm",
    "q": "query projection",
    "k": "key projection",
    "v": "value projection",
    "rope": "rotary embedding",
    "kv_append": "KV cache append",
    "scores": "attention scores",
    "softmax": "attention softmax",
    "values": "attention values",
    "o": "attention output",
    "attention_add": "residual add",
    "ffn_norm": "FFN norm",
    "gate": "FFN gate",
    "up": "FFN up",
    "silu_mul": "FFN SiLU and product",
    "gelu": "FFN GELU",
    "gelu_tanh": "FFN GELU",
    "down": "FFN down",
    "ffn_add": "residual add",
    "lm_head": "LM head",
    "argmax": "argmax",
}
_TENSORS: Final = {
    "stream": "residual stream",
    "middle": "residual stream",
    "q": "queries",
    "k": "keys",
    "v": "values",
    "gate": "gate",
    "up": "up",
    "activated": "FFN activations",
    "attended": "attention outputs",
    "attended_partial": "partial attention outputs",
    "best": "best token",
    "selected": "rows for the LM head",
    "embedded": "embeddings",
}
_SUFFIXES: Final = {"_statistic": "norm statistic", "_sum": "norm sum", "_weight": "weights"}
_ACTIONS: Final = {
    Tag.BROADCAST: "broadcast {what} to all PEs",
    Tag.MULTICAST: "multicast {what} to groups of PEs",
    Tag.SCATTER: "scatter {what} over the PEs",
    Tag.GATHER: "gather {what} at root",
    Tag.ALL_GATHER: "all-gather {what}",
    Tag.ALL_TO_ALL: "all-to-all {what}",
    Tag.REDUCE: "reduce {what} to root",
    Tag.UNICAST: "forward {what} to the next PEs",
    Tag.WEIGHT_STREAM: "stream {what} to all PEs",
}


def stage_title(span: StageSpan, stage: Stage) -> str:
    """Layer, operator and, where it is not the operator itself, what is done for it."""
    layer = [] if span.layer is None else [f"layer {span.layer}"]
    action = stage_action(span, stage)
    return SEPARATOR.join([*layer, operator_title(span.operator), *([action] if action else [])])


def stage_action(span: StageSpan, stage: Stage) -> str:
    """What a message carries and where to, or a step of an operator that has several; empty for an operator itself."""
    tag = tag_of(stage)
    if tag is None:
        return "" if span.name == span.operator else span.name.replace("_", " ")
    what = tensor_title(span.name.partition(" ")[2])
    if isinstance(stage, TreeStage | RoutedStage) and tag is Tag.REDUCE and not _ends_at_root(stage):
        return f"reduce {what} within groups of PEs"
    return _ACTIONS[tag].format(what=what)


def operator_title(operator: str) -> str:
    """An operator of the graph in words."""
    return _OPERATORS.get(operator, operator.replace("_", " "))


def tensor_title(tensor: str) -> str:
    """What a message carries, several tensors in one listed."""
    names = [_tensor(name) for name in tensor.split("+")]
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} and {last}" if others else last


def _tensor(name: str) -> str:
    ending = next((text for suffix, text in _SUFFIXES.items() if name.endswith(suffix)), None)
    return ending or _TENSORS.get(name, name.replace("_", " "))


def _ends_at_root(stage: TreeStage | RoutedStage) -> bool:
    """Of a graph of channels it is not told where a reduction's hub is; several hubs are those of groups."""
    return stage.at_root if isinstance(stage, TreeStage) else len(stage.counted_bytes) == 1
