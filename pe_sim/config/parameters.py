"""How many parameters a model has: takes a resolved model, gives an itemised count, as Hugging Face counts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pe_sim.config.model import ModelConfig


@dataclass(frozen=True, slots=True)
class LayerParameters:
    """The parameters of one transformer block, biases included; each number counts elements."""

    attention: int
    ffn: int
    norms: int

    @property
    def total(self) -> int:
        """Elements of one block."""
        return self.attention + self.ffn + self.norms


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """The parameters of a whole model, item by item; each number counts elements.

    `norms` are the norms outside the blocks; `head` is the LM head (0 when there is none, or it shares the embedding
    table) or, for BERT, the pooler.
    """

    embedding: int
    layer: LayerParameters
    num_layers: int
    norms: int
    head: int

    @property
    def total(self) -> int:
        """Elements of the whole model."""
        return self.embedding + self.num_layers * self.layer.total + self.norms + self.head


def count_llama(model: ModelConfig) -> ParameterCount:
    """LlamaForCausalLM: token table, blocks, final norm, and an LM head unless it is tied or the class has none."""
    table = model.vocab_size * model.hidden_size
    return ParameterCount(
        embedding=table,
        layer=LayerParameters(
            attention=_attention(model),
            ffn=_ffn(model, up_matrices=2),
            norms=2 * model.hidden_size,
        ),
        num_layers=model.num_layers,
        norms=model.hidden_size,
        head=_lm_head(model),
    )


def count_gpt2(model: ModelConfig) -> ParameterCount:
    """GPT2LMHeadModel: token and position tables, blocks, final norm, and an LM head as in `count_llama`."""
    table = model.vocab_size * model.hidden_size
    return ParameterCount(
        embedding=table + model.max_position_embeddings * model.hidden_size,
        layer=LayerParameters(
            attention=_attention(model),
            ffn=_ffn(model, up_matrices=1),
            norms=2 * _layernorm(model),
        ),
        num_layers=model.num_layers,
        norms=_layernorm(model),
        head=_lm_head(model),
    )


def count_bert(model: ModelConfig) -> ParameterCount:
    """BertModel with its pooler: token, position and segment tables, the embedding's norm, blocks, pooler."""
    rows = model.vocab_size + model.max_position_embeddings + model.type_vocab_size
    return ParameterCount(
        embedding=rows * model.hidden_size,
        layer=LayerParameters(
            attention=_attention(model),
            ffn=_ffn(model, up_matrices=1),
            norms=2 * _layernorm(model),
        ),
        num_layers=model.num_layers,
        norms=_layernorm(model),
        head=_linear(model.hidden_size, model.hidden_size, bias=True),
    )


COUNTERS: dict[str, Callable[[ModelConfig], ParameterCount]] = {
    "llama": count_llama,
    "gpt2": count_gpt2,
    "bert": count_bert,
}


def count_parameters(model: ModelConfig) -> ParameterCount:
    """The itemised count of `model`, by its family.

    Raises:
        KeyError: the family has no counter; a reader that makes such a model is at fault, not the user.
    """
    return COUNTERS[model.family](model)


def _lm_head(model: ModelConfig) -> int:
    """Of a table of its own."""
    return model.vocab_size * model.hidden_size if model.has_lm_head and not model.tie_word_embeddings else 0


def _linear(inputs: int, outputs: int, *, bias: bool) -> int:
    return inputs * outputs + (outputs if bias else 0)


def _layernorm(model: ModelConfig) -> int:
    return 2 * model.hidden_size  # a weight and a bias


def _attention(model: ModelConfig) -> int:
    """The query, key, value and output projections."""
    query = _linear(model.hidden_size, model.q_size, bias=model.has_qkv_bias)
    key_and_value = 2 * _linear(model.hidden_size, model.kv_size, bias=model.has_qkv_bias)
    output = _linear(model.q_size, model.hidden_size, bias=model.attention_bias)
    return query + key_and_value + output


def _ffn(model: ModelConfig, *, up_matrices: int) -> int:
    """The up (and gate) projections and the down projection."""
    up = up_matrices * _linear(model.hidden_size, model.ffn_size, bias=model.mlp_bias)
    down = _linear(model.ffn_size, model.hidden_size, bias=model.mlp_bias)
    return up + down
