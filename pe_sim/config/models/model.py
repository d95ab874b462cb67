"""The resolved transformer: one frozen description for all families and dialects, its checks and parameter counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter

from pe_sim.config.dtypes import BITS, Dtype
from pe_sim.errors import InputError, did_you_mean, listed
from pe_sim.notebook import card
from pe_sim.registry import Registry
from pe_sim.units import format_bytes, format_count


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a transformer. Sizes are elements; `family` is llama, gpt2 or bert.

    `norm` is rmsnorm or layernorm; `activation` is silu, gelu or gelu_tanh; `position` is rope or learned;
    `rope_scaling` holds the parameters of a scaled RoPE (rope_type and its factors) and is empty without one.
    `attention_bias` means biases on query, key, value and output projections, `qkv_bias` on the first three (Qwen2).
    Without `has_lm_head` a step ends with hidden states (in a decoder: after its final norm); `left_out` names what
    else the file's model class computes and no step here does, and is empty if there is nothing.
    `ignored_keys` are the keys of the file that were not read; those among them that are unknown, or that the user
    asked to ignore, are `unknown_keys`.
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
        """Number of query heads that share one kv head."""
        return self.num_heads // self.num_kv_heads

    @property
    def has_qkv_bias(self) -> bool:
        """Whether the query, key and value projections have biases; for the output's see `attention_bias`."""
        return self.attention_bias or self.qkv_bias

    @property
    def has_kv_cache(self) -> bool:
        """Whether the model decodes token by token; an encoder (bert) does not."""
        return self.family != "bert"

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for readers of results on how the model ends and on keys that were not understood; often none."""
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
        """Number of elements of all weights, as Hugging Face counts: a tied LM head once, BERT with its pooler."""
        return count_parameters(self).total

    @property
    def num_parameters_per_layer(self) -> int:
        """Number of elements of one transformer block, norms and biases included."""
        return count_parameters(self).layer.total

    def kv_bytes_per_token(self, dtype: Dtype | str) -> int:
        """Bytes that one token adds to the KV cache over all layers, with shared scales; 0 for an encoder.

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
        """HTML of the model for a notebook."""

        return model_card(self)

    def to_dict(self) -> dict[str, object]:
        """All fields as a JSON-ready dict, with the parameter count as `parameters` right after the name."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["rope_scaling"] = dict(self.rope_scaling)
        values |= {"ignored_keys": list(self.ignored_keys), "unknown_keys": list(self.unknown_keys)}
        return {"name": values.pop("name"), "parameters": self.num_parameters, **values}


# ---- How many parameters a model has: takes a resolved model, gives an itemised count, as Hugging Face counts them.


@dataclass(frozen=True, slots=True)
class LayerParameters:
    """The parameter counts of one transformer block in elements, biases included."""

    attention: int
    ffn: int
    norms: int

    @property
    def total(self) -> int:
        """Number of elements of one block."""
        return self.attention + self.ffn + self.norms


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """The itemised parameter count of a whole model, in elements.

    `norms` are the norms outside the blocks; `head` is the LM head (0 if there is none, or it shares the embedding
    table) or, for BERT, the pooler.
    """

    embedding: int
    layer: LayerParameters
    num_layers: int
    norms: int
    head: int

    @property
    def total(self) -> int:
        """Number of elements of the whole model."""
        return self.embedding + self.num_layers * self.layer.total + self.norms + self.head


def count_llama(model: ModelConfig) -> ParameterCount:
    """Parameters of LlamaForCausalLM: token table, blocks, final norm, and the LM head unless it is tied or absent."""
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
    """Parameters of GPT2LMHeadModel: token and position tables, blocks, final norm, LM head as in `count_llama`."""
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
    """Parameters of BertModel with its pooler: token, position and segment tables, embedding norm, blocks, pooler."""
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


COUNTERS: Registry[Callable[[ModelConfig], ParameterCount]] = Registry(
    "pe_sim.models",
    {"llama": count_llama, "gpt2": count_gpt2, "bert": count_bert},
    take=attrgetter("count_parameters"),
)


def count_parameters(model: ModelConfig) -> ParameterCount:
    """The itemised parameter count of `model`, by its family.

    Raises:
        KeyError: the family has no counter; the reader that made such a model is at fault, not the user.
    """
    return COUNTERS[model.family](model)


def _lm_head(model: ModelConfig) -> int:
    """Elements of the LM head; 0 if the model has none, or it is tied to the token table."""
    return model.vocab_size * model.hidden_size if model.has_lm_head and not model.tie_word_embeddings else 0


def _linear(inputs: int, outputs: int, *, bias: bool) -> int:
    return inputs * outputs + (outputs if bias else 0)


def _layernorm(model: ModelConfig) -> int:
    return 2 * model.hidden_size  # a weight and a bias


def _attention(model: ModelConfig) -> int:
    """Elements of the query, key, value and output projections."""
    query = _linear(model.hidden_size, model.q_size, bias=model.has_qkv_bias)
    key_and_value = 2 * _linear(model.hidden_size, model.kv_size, bias=model.has_qkv_bias)
    output = _linear(model.q_size, model.hidden_size, bias=model.attention_bias)
    return query + key_and_value + output


def _ffn(model: ModelConfig, *, up_matrices: int) -> int:
    """Elements of the up (and gate) projections and the down projection."""
    up = up_matrices * _linear(model.hidden_size, model.ffn_size, bias=model.mlp_bias)
    down = _linear(model.ffn_size, model.hidden_size, bias=model.mlp_bias)
    return up + down


# ---- Checks of a model's sizes: takes a resolved model, gives it back or says which two sizes disagree.


ACTIVATIONS: Registry[tuple[str, ...]] = Registry(
    "pe_sim.models",
    {"llama": ("silu",), "gpt2": ("gelu", "gelu_tanh"), "bert": ("gelu", "gelu_tanh")},
    ("__iter__",),
    attrgetter("activations"),
)


def derive_head_dim(hidden_size: int, num_heads: int) -> int:
    """The default width of a head: hidden_size / num_heads.

    Raises:
        InputError: the heads do not divide the hidden size.
    """
    if hidden_size % num_heads:
        raise InputError(
            f"hidden size {hidden_size} is not a multiple of the {num_heads} attention heads",
            hint="change one of the two, or state head_dim where the family has it",
        )
    return hidden_size // num_heads


def check_model(model: ModelConfig) -> ModelConfig:
    """`model` itself if its sizes agree with each other and with its family.

    Raises:
        InputError: heads that cannot share kv heads, or a head width or an activation the family cannot have.
    """
    _check_heads(model)
    if model.position == "rope" and model.head_dim % 2:
        problem = f"head_dim {model.head_dim} is odd, and rotary positions turn pairs of elements"
        raise InputError(problem)
    known = ACTIVATIONS[model.family]
    if model.activation not in known:
        raise InputError(f"{model.family} has no activation {model.activation!r}", expected=" or ".join(known))
    return model


def _check_heads(model: ModelConfig) -> None:
    if model.num_heads % model.num_kv_heads:
        raise InputError(
            f"{model.num_heads} attention heads cannot share {model.num_kv_heads} kv heads evenly",
            expected="a number of attention heads that is a multiple of the kv heads",
        )
    if model.family not in ("gpt2", "bert"):
        return
    if model.num_kv_heads != model.num_heads:
        raise InputError(
            f"{model.family} has as many kv heads as attention heads, not {model.num_kv_heads} and {model.num_heads}",
        )
    if model.q_size != model.hidden_size:
        raise InputError(
            f"{model.family} needs num_heads * head_dim = hidden_size,"
            f" but {model.num_heads} * {model.head_dim} is not {model.hidden_size}",
        )


def model_card(model: ModelConfig) -> str:
    """HTML for a notebook: the model's size, its shape, and the bytes that a token of context takes."""
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
