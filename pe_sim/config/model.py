"""The resolved transformer: one frozen description for every family and dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from pe_sim.config.dtypes import BITS, Dtype
from pe_sim.config.parameters import count_parameters
from pe_sim.errors import InputError, did_you_mean, listed


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A transformer's shape. Sizes are elements; `family` is llama, gpt2 or bert.

    `norm` is rmsnorm or layernorm; `activation` is silu, gelu or gelu_tanh; `position` is rope or learned;
    `rope_scaling` holds the parameters of a scaled RoPE (rope_type and its factors) and is empty without one.
    `attention_bias` is biases on query, key, value and output projections, `qkv_bias` on the first three (Qwen2).
    Without `has_lm_head` a step ends with hidden states (of a decoder: after its final norm); `left_out` names what
    else the file's model class computes and no step here does, and is empty where there is nothing.
    `ignored_keys` are the keys of the file that were not read; those of them that nobody knows, or that the user asked
    to ignore, are `unknown_keys`.
    """

    name: str
    family: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    vocab_size: int
    max_position_embeddings: int
    norm: str
    norm_eps: float
    activation: str
    gated_ffn: bool
    position: str
    tie_word_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    rope_theta: float = 10000.0
    rope_scaling: Mapping[str, float | int | str] = field(default_factory=dict, hash=False)
    type_vocab_size: int = 0
    qkv_bias: bool = False
    has_lm_head: bool = True
    left_out: str = ""
    ignored_keys: tuple[str, ...] = ()
    unknown_keys: tuple[str, ...] = ()

    @property
    def q_size(self) -> int:
        """Width of the queries of one row: num_heads * head_dim."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of the keys (or the values) of one row: num_kv_heads * head_dim."""
        return self.num_kv_heads * self.head_dim

    @property
    def heads_per_kv_head(self) -> int:
        """Query heads that share one kv head."""
        return self.num_heads // self.num_kv_heads

    @property
    def has_qkv_bias(self) -> bool:
        """Whether the query, key and value projections have biases; `attention_bias` says it of the output's."""
        return self.attention_bias or self.qkv_bias

    @property
    def has_kv_cache(self) -> bool:
        """Whether the model decodes token by token; an encoder (bert) does not."""
        return self.family != "bert"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results has to know of how the model ends and how it was read; mostly nothing."""
        unknown = f"keys of the model's config that are not understood, ignored: {listed(self.unknown_keys)}"
        told = (unknown,) if self.unknown_keys else ()
        end = "the LM head" if self.has_lm_head else "the final norm" if self.has_kv_cache else "the pooler"
        if self.left_out:
            return (f"{self.left_out} is not simulated: {self.name} ends with {end}", *told)
        if self.has_kv_cache and not self.has_lm_head:
            return (f"{self.name} has no LM head and ends with {end}", *told)
        return told

    @property
    def num_parameters(self) -> int:
        """Elements of all weights, counted as Hugging Face counts them (a tied LM head once, BERT with its pooler)."""
        return count_parameters(self).total

    @property
    def num_parameters_per_layer(self) -> int:
        """Elements of one transformer block, norms and biases included."""
        return count_parameters(self).layer.total

    def kv_bytes_per_token(self, dtype: Dtype | str) -> int:
        """Bytes one token adds to the KV cache over all layers, shared scales included; 0 for an encoder.

        Args:
            dtype: the cache's element type, or its name (without scales).

        Raises:
            InputError: the name is not a known dtype.
        """
        if not self.has_kv_cache:
            return 0
        if isinstance(dtype, str):
            if dtype not in BITS:
                raise InputError("unknown dtype", path="dtype", given=dtype, hint=did_you_mean(dtype, BITS))
            dtype = Dtype(dtype)
        per_tensor = dtype.matrix_bytes(self.num_kv_heads, self.head_dim)
        return 2 * self.num_layers * int(per_tensor)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from pe_sim.config.cards import model_card  # words for people; the config itself needs none

        return model_card(self)

    def to_dict(self) -> dict[str, object]:
        """Every field, ready for JSON, and the parameter count as `parameters` right after the name."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["rope_scaling"] = dict(self.rope_scaling)
        values |= {"ignored_keys": list(self.ignored_keys), "unknown_keys": list(self.unknown_keys)}
        return {"name": values.pop("name"), "parameters": self.num_parameters, **values}
