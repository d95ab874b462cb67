"""Writes transformers_keys.json of `config`: what the fields of transformers' configuration classes mean to a step.

    python -m tests.config.models.transformers_keys FOLDER...

Each FOLDER holds one release's package `transformers` (an unpacked wheel); its configuration modules are parsed, not
imported. A field is *neutral* where one of the rules below says so: it cannot change what one step of inference
computes. Any other field is *computing*; listed with it are the first classes that have it, and the scalars that leave
it off, which are known where every class leaves it off unless told otherwise.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

TABLE = Path(__file__).parents[3] / "pe_sim" / "config" / "models" / "transformers_keys.json"

# Training, generation defaults, labels, token ids, bookkeeping, precision of sums, and kernels that give the same.
NEUTRAL_NAMES = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _auto_class _commit_hash _name_or_path architectures
    attention_softmax_in_fp32 attn_impl attn_implementation attribute_map bad_words_ids base_config_key
    begin_suppress_tokens cache_implementation chunk_size_feed_forward config_class context_length
    cpu_grad_checkpoint deterministic_flash_attn disable_custom_kernels diversity_penalty do_sample dtype
    early_stopping encoder_no_repeat_ngram_size experts_implementation exponential_decay_length_penalty
    extra_config_files extra_files finetuning_task gradient_checkpointing gradient_clipping has_no_defaults_at_init
    id2label input_jitter_noise is_composition is_training keys_to_ignore_at_inference label2id label_smoothing
    length_penalty max_length max_seq_len min_length moe_jitter_eps name_or_path no_repeat_ngram_size
    num_beam_groups num_beams num_labels num_return_sequences optional output_attentions output_hidden_states
    output_past output_router_logits output_scores pad_to_multiple_of pad_vocab_size_multiple
    pad_vocab_size_multiple_of prefix pretraining_tp problem_type reference_compile remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate router_jitter_noise seed seq_length sub_configs
    sub_configs_defaults suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder
    tokenizer_class top_k top_p torch_dtype torchscript transformers_version trust_remote_code typical_p
    use_bfloat16 use_cache use_memory_efficient_attention use_return_dict verbose vocab_multiple vocab_size_multiple
    xla_device
    """.split()  # noqa: SIM905 - a list of words reads better than a hundred quoted lines
)
NEUTRAL_FORMS = tuple(
    map(
        re.compile,
        (
            r".*_token_ids?|.*_token_index|(bos|eos|pad|unk|mask)_index",
            r"(.*_)?(dropout|dropatt|layerdrop|layer_drop|pdrop)(_p|_prob|_rate|_value)?",
            r"(.*_)?drop(_path|_connect|_mlp|_conv_encoder)?_rate",
            r"(.*_)?initializer_(range|std|factor|cutoff_factor)|(.*_)?init_(std|range|xavier_std|device|kwargs)",
            r"(.*_)?(loss|cost)(_(weight|coef|coefficient|scale|scaling_factor|reduction|type|alpha|gamma|delta))?",
            r"base_model_[a-z]+_plan|forced_.*|freeze(_.*)?|mask_(time|feature)_.*",
        ),
    )
)
GENERATION = "generation"  # the folder of the classes with the defaults of text generation
_OFF = (None, False, 0, 0.0, "", [], {}, ())
_UNKNOWN = object()


def is_neutral(name: str) -> bool:
    """Whether a field cannot change what one step of inference computes."""
    return name in NEUTRAL_NAMES or any(form.fullmatch(name) for form in NEUTRAL_FORMS)


def fields(folder: Path) -> Iterator[tuple[str, str, object]]:
    """Name, model family and default of every field of every configuration class of one release."""
    for path in sorted(folder.glob("**/configuration_*.py")):
        family = "every class" if path.parent == folder else path.parent.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and "Config" in node.name and "Onnx" not in node.name:
                yield from ((name, family, default) for name, default in _fields_of(node))


def _fields_of(node: ast.ClassDef) -> Iterator[tuple[str, object]]:
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            yield part.target.id, _default(part.value)
        elif isinstance(part, ast.FunctionDef) and part.name in ("__init__", "__post_init__"):
            given = part.args.args[1:]
            defaults = [None] * (len(given) - len(part.args.defaults)) + list(part.args.defaults)
            pairs = [*zip(given, defaults, strict=True), *zip(part.args.kwonlyargs, part.args.kw_defaults, strict=True)]
            yield from ((item.arg, _default(default)) for item, default in pairs)
            yield from _popped(part)


def _popped(function: ast.FunctionDef) -> Iterator[tuple[str, object]]:
    """What is taken out of the keyword arguments."""
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("kwargs.pop", "kwargs.get"):
            first, *rest = call.args
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value, _default(rest[0] if rest else ast.Constant(None))


def _default(node: ast.expr | None) -> object:
    """A field's default; None's stand-in where there is none or it is not a plain value."""
    if node is None:
        return _UNKNOWN
    if isinstance(node, ast.Call):  # interval(min=0.0)(default=0.02), field(default=None)
        node = next((word.value for word in node.keywords if word.arg == "default"), None)
        return _default(node)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _UNKNOWN


def table(found: Iterable[tuple[str, str, object]]) -> dict[str, Mapping[str, object] | list[str]]:
    """The table: neutral names; computing names with families that have them and the scalars that leave them off."""
    families: dict[str, set[str]] = {}
    defaults: dict[str, list[object]] = {}
    for name, family, default in found:
        families.setdefault(name, set()).add(family)
        defaults.setdefault(name, []).append(default)
    neutral = NEUTRAL_NAMES | {name for name, of in families.items() if is_neutral(name) or of == {GENERATION}}
    computing = {
        name: {"of": sorted(families[name] - {GENERATION})[:3], "off": _off_values(defaults[name])}
        for name in sorted(families.keys() - neutral)
    }
    return {"neutral": sorted(neutral), "computing": computing}


def _off_values(defaults: list[object]) -> list[object]:
    """False or 0 where every class has it, or something else that is empty, as its default."""
    if any(not _is_off(value) for value in defaults):
        return []
    kinds = {type(value) for value in defaults}
    return [off for off, kind in ((False, {bool}), (0, {int, float})) if kind & kinds]


def _is_off(value: object) -> bool:
    return any(type(value) is type(off) and value == off for off in _OFF)


def to_text(made: Mapping[str, Mapping[str, object] | list[str]]) -> str:
    """The table as JSON, a line a name."""
    neutral = ",\n".join(json.dumps(name) for name in made["neutral"])
    computing = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in made["computing"].items())
    return f'{{"neutral": [\n{neutral}],\n"computing": {{\n{computing}}}}}\n'


if __name__ == "__main__":
    TABLE.write_text(to_text(table(item for folder in sys.argv[1:] for item in fields(Path(folder)))), encoding="utf-8")
