"""Merak's arguments as a flat JSON (degrees, MerakArguments and set_tp_layer_lists): takes the mapping, gives a plan.

Row and column there have Megatron's meaning: a column parallel matrix has its outputs sharded, which is `row` here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from pe_sim.config.files.foreign import KeyRules, Refusal
from pe_sim.config.plans.checks import (
    MAX_COUNT,
    check_bounds,
    flag,
    ignored_line,
    sort_plan_keys,
    whole,
)
from pe_sim.config.plans.plan import ParallelPlan, Partition
from pe_sim.errors import InputError, did_you_mean

_DEGREES: Final = ("dp", "tp", "pp")
# Methods of Merak's layers_partition.py; defaults are those of its classes, which its documents do not always repeat.
_METHODS: Final[dict[str, Partition]] = {
    "uniform": "uniform_ceil",
    "uniform_floor": "uniform_floor",
    "parameters": "parameters",
}
_DEFAULT_METHOD: Final = "uniform_floor"
_DEFAULT_OVERLAP: Final = 0
_LISTS: Final = ("col_para_list", "row_para_list", "input_output_mapping")
_MINE: Final = (
    "partition_method",
    "custom_partition",
    "train_schedule",
    "tp_overlapping_level",
    "sequence_parallel",
    "parallel_vocab",
    *_LISTS,
    "seq_length",
    "out_seq_length",
    "num_heads",
)
# Keys that other dialects have too, so they do not tell that a file is Merak's.
_SHARED: Final = (*_DEGREES, "num_layers", "hidden_size")
_REASONS: Final = {
    "train_schedule": "inference has forward passes alone",
    "sequence_parallel": "it moves where norms run, not what they give",
    "seq_length": "the step says it",
    "out_seq_length": "the step says it",
    "num_heads": "the model says it",
    "hidden_size": "the model says it",
}
# Megatron's style -> the distribution here.
_STYLES: Final = {"col": "row", "row": "col"}
# (inputs, outputs) in units of the hidden size -> the operators of that shape.
_SHAPES: Final = {(1, 3): ("q", "k", "v"), (1, 1): ("o",), (1, 4): ("gate", "up"), (4, 1): ("down",)}


def is_merak_plan(raw: Mapping[str, object]) -> bool:
    """Whether the mapping has a key that only Merak's arguments have."""
    return any(key in raw for key in _MINE) or not MERAK_ONLY.isdisjoint(raw)


def read_merak_plan(raw: Mapping[str, object], name: str, num_arrays: int | None = None) -> ParallelPlan:
    """The plan that the arguments describe; missing or null ones have MerakArguments' defaults.

    Args:
        raw: the mapping of the file.
        name: name of the plan.
        num_arrays: unused; the degrees say it.

    Raises:
        InputError: an unknown or wrong entry, bounds that do not fit the stages, or a layer with two styles.
    """
    stated, ignored = sort_plan_keys(raw, (*_SHARED, *_MINE), MERAK_KEYS)
    values = {key: value for key, value in stated.items() if value is not None}
    dp, tp, pp = (whole(values.get(degree, 1), degree) for degree in _DEGREES)
    num_layers = _optional(values, "num_layers")
    partition = _partition(values, pp, num_layers)
    if isinstance(partition, tuple):
        num_layers = partition[-1]
    return ParallelPlan(
        name=name,
        dp=dp,
        tp=tp,
        pp=pp,
        partition=partition,
        overlap=_overlap(values),
        matrices=_matrices(values),
        split_vocabulary=flag(values.get("parallel_vocab", False), "parallel_vocab"),
        num_layers=num_layers,
        ignored=(*_checked_and_ignored(values), *ignored),
    )


def _optional(values: Mapping[str, object], key: str) -> int | None:
    return whole(values[key], key) if key in values else None


def _checked_and_ignored(values: Mapping[str, object]) -> tuple[str, ...]:
    schedule = values.get("train_schedule", SCHEDULES[0])
    if schedule not in SCHEDULES:
        raise InputError(
            "unknown schedule",
            path="train_schedule",
            given=schedule,
            expected=", ".join(SCHEDULES),
            hint=did_you_mean(str(schedule), SCHEDULES),
        )
    flag(values.get("sequence_parallel", False), "sequence_parallel")
    for key in ("seq_length", "out_seq_length", "hidden_size"):
        _optional(values, key)
    return tuple(ignored_line(key, values[key], why) for key, why in _REASONS.items() if key in values)


def _overlap(values: Mapping[str, object]) -> int:
    """The overlap level; Merak's documents call it a float, so 1.0 is accepted too."""
    level = values.get("tp_overlapping_level", _DEFAULT_OVERLAP)
    if isinstance(level, int | float) and not isinstance(level, bool) and level in (0, 1, 2, 3):
        return int(level)
    raise InputError("no such level", path="tp_overlapping_level", given=level, expected="0, 1, 2 or 3")


def _partition(values: Mapping[str, object], pp: int, num_layers: int | None) -> Partition | tuple[int, ...]:
    bounds = values.get("custom_partition")
    method = values.get("partition_method", _DEFAULT_METHOD if bounds is None else "custom")
    method = method.lower() if isinstance(method, str) else method
    if method == "custom":
        if bounds is None:
            problem, hint = "missing", "partition_method custom needs the bounds of the stages"
            raise InputError(
                problem,
                path="custom_partition",
                expected=f"{pp + 1} bounds: [0, ..., layers]",
                hint=hint,
            )
        return check_bounds(_bounds(bounds), pp, num_layers, "custom_partition")
    if bounds is not None:
        raise InputError(
            f"bounds beside partition_method {method!r}",
            path="custom_partition",
            given=bounds,
            expected="null, or partition_method custom",
        )
    if isinstance(method, str) and method in _METHODS:
        return _METHODS[method]
    known = (*_METHODS, "custom")
    raise InputError(
        "unknown method",
        path="partition_method",
        given=method,
        expected=", ".join(known),
        hint=did_you_mean(str(method), known),
    )


def _bounds(given: object) -> tuple[int, ...]:
    """The bounds of the stages, from numbers or texts (as in Merak's documents), or from one text ["0,17,32"]."""
    if isinstance(given, list | tuple) and len(given) == 1 and isinstance(given[0], str):
        given = given[0]
    if isinstance(given, str):
        given = given.split(",")
    if not isinstance(given, list | tuple):
        problem, expected = "not a list", "bounds of the stages: [0, ..., layers]"
        raise InputError(problem, path="custom_partition", given=given, expected=expected)
    bounds = []
    for index, entry in enumerate(given):
        value = int(entry) if isinstance(entry, str) and entry.strip().isdecimal() else entry
        if isinstance(value, float) and value.is_integer() and 0 <= value <= MAX_COUNT:
            value = int(value)
        bounds.append(whole(value, f"custom_partition.{index}", least=0))
    return tuple(bounds)


def _matrices(values: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """(operator, distribution) for each operator that the lists name, in their order."""
    found: dict[str, tuple[str, str]] = {}
    for operator, style, path, given in _styles(values):
        split = _STYLES[style]
        before = found.setdefault(operator, (split, path))
        if before[0] != split:
            raise InputError(
                f"operator {operator} is column parallel and row parallel at once, the other in {before[1]}",
                path=path,
                given=given,
                expected="each layer in one list",
            )
    return tuple((operator, split) for operator, (split, _) in found.items())


def _styles(values: Mapping[str, object]) -> Iterator[tuple[str, str, str, object]]:
    """Yields (operator, Megatron's style, path, entry) for every entry of the lists."""
    for key in _LISTS:
        entries = values.get(key)
        if entries is None:
            continue
        if not isinstance(entries, list | tuple):
            raise InputError("not a list", path=key, given=entries, expected="a list")
        for index, entry in enumerate(entries):
            path = f"{key}.{index}"
            if key == "input_output_mapping":
                operators, style = _of_shape(entry, path)
            else:
                operators, style = operators_of(entry, path), key[:3]
            for operator in operators:
                yield operator, style, path, entry


def _of_shape(entry: object, path: str) -> tuple[tuple[str, ...], str]:
    if isinstance(entry, list | tuple) and len(entry) == 3:
        for (inputs, outputs), operators in _SHAPES.items():
            for style in _STYLES:
                if tuple(entry) == (inputs, outputs, style):
                    return operators, style
    shapes = " or ".join(f"({inputs}, {outputs})" for inputs, outputs in _SHAPES)
    raise InputError(
        "no known shape of a linear layer",
        path=path,
        given=entry,
        expected=f"(inputs, outputs, 'row' or 'col') with inputs and outputs {shapes}",
    )


# ---- The keys of MerakArguments that say nothing about inference, and those that must be refused.


# Merak's own keys, other than those that a plan is made of.
MERAK_ONLY: Final = frozenset(
    """
    split_method custom_split_points trace_method trace_model init_method_std activation_checkpointing
    checkpoint_num_layers input_names wall_clock_breakdown shard_count prescale_gradients gradient_predivide_factor
    cache_sharding cache_name return_logits zero_allow_untested_optimizer zero_stage zero_allgather_bucket_size
    zero_reduce_bucket_size save finetune no_save_rng no_save_optim no_load_rng no_load_optim split_inputs
    sequence_dim dealloc_pipeoutput activation_checkpoint_ratio loss_scale initial_scale_power loss_scale_window
    hysteresis min_loss_scale no_tie_modules eval_iters text_generation adapter_name weight_change_list tp_attr_list
    """.split()  # noqa: SIM905 - a list of words reads better than forty quoted lines
)

# Keys of transformers' TrainingArguments, from which MerakArguments derives: training, data, logging and hardware.
_TRAINING: Final = frozenset(
    """
    output_dir overwrite_output_dir do_train do_eval do_predict evaluation_strategy eval_strategy prediction_loss_only
    per_device_train_batch_size per_device_eval_batch_size per_gpu_train_batch_size per_gpu_eval_batch_size
    gradient_accumulation_steps eval_accumulation_steps eval_delay torch_empty_cache_steps learning_rate weight_decay
    adam_beta1 adam_beta2 adam_epsilon max_grad_norm num_train_epochs max_steps lr_scheduler_type lr_scheduler_kwargs
    warmup_ratio warmup_steps log_level log_level_replica log_on_each_node logging_dir logging_strategy
    logging_first_step logging_steps logging_nan_inf_filter save_strategy save_steps save_total_limit save_safetensors
    save_on_each_node save_only_model restore_callback_states_from_checkpoint no_cuda use_cpu use_mps_device seed
    data_seed jit_mode_eval use_ipex bf16 fp16 fp16_opt_level half_precision_backend bf16_full_eval fp16_full_eval tf32
    local_rank ddp_backend tpu_num_cores tpu_metrics_debug debug dataloader_drop_last eval_steps dataloader_num_workers
    dataloader_prefetch_factor past_index run_name disable_tqdm remove_unused_columns label_names load_best_model_at_end
    metric_for_best_model greater_is_better ignore_data_skip sharded_ddp fsdp fsdp_min_num_params fsdp_config
    fsdp_transformer_layer_cls_to_wrap accelerator_config deepspeed label_smoothing_factor optim optim_args adafactor
    group_by_length length_column_name report_to ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers
    dataloader_pin_memory dataloader_persistent_workers skip_memory_metrics use_legacy_prediction_loop push_to_hub
    resume_from_checkpoint hub_model_id hub_strategy hub_token hub_private_repo hub_always_push hub_revision
    gradient_checkpointing gradient_checkpointing_kwargs include_inputs_for_metrics include_for_metrics
    eval_do_concat_batches fp16_backend push_to_hub_model_id push_to_hub_organization push_to_hub_token mp_parameters
    auto_find_batch_size full_determinism torchdynamo ray_scope ddp_timeout torch_compile torch_compile_backend
    torch_compile_mode dispatch_batches split_batches include_tokens_per_second include_num_input_tokens_seen
    neftune_noise_alpha optim_target_modules batch_eval_metrics eval_on_start use_liger_kernel
    eval_use_gather_object average_tokens_across_devices parallelism_config project trackio_space_id DDP_impl
    params_dtype use_cpu_initialization xpu_backend model_name model_name_or_path
    """.split()  # noqa: SIM905 - as above
)

MERAK_KEYS: Final = KeyRules(
    ignored=MERAK_ONLY | _TRAINING | {"temperature"},
    refused={"lora_config": Refusal("low-rank adapters")},
)

SCHEDULES: Final = (
    "1f1b",
    "pre_recompute_1f1b",
    "ds_default",
    "last_no_recompute_1f1b",
    "shifted_critical_path",
    "full_critical_path_1f1b",
)


# ---- Names of linear layers in other systems: takes a name, gives the operators it is here.


# Names as Hugging Face's, Megatron's and Meta's modules have them, by their last parts.
_OPERATORS: Final[dict[str, tuple[str, ...]]] = {
    "q_proj": ("q",),
    "query": ("q",),
    "wq": ("q",),
    "k_proj": ("k",),
    "key": ("k",),
    "wk": ("k",),
    "v_proj": ("v",),
    "value": ("v",),
    "wv": ("v",),
    "qkv": ("q", "k", "v"),
    "qkv_proj": ("q", "k", "v"),
    "qkv_dense": ("q", "k", "v"),
    "query_key_value": ("q", "k", "v"),
    "c_attn": ("q", "k", "v"),
    "o_proj": ("o",),
    "out_proj": ("o",),
    "wo": ("o",),
    "dense": ("o",),
    "attn.c_proj": ("o",),
    "attention.output.dense": ("o",),
    "gate_proj": ("gate",),
    "w1": ("gate",),
    "up_proj": ("up",),
    "w3": ("up",),
    "c_fc": ("up",),
    "fc1": ("up",),
    "intermediate.dense": ("up",),
    "gate_up_proj": ("gate", "up"),
    "dense_h_to_4h": ("gate", "up"),
    "down_proj": ("down",),
    "w2": ("down",),
    "fc2": ("down",),
    "mlp.c_proj": ("down",),
    "dense_4h_to_h": ("down",),
    # Without a prefix, these are the last matrices of attention and of the FFN.
    "c_proj": ("o", "down"),
    "output.dense": ("o", "down"),
}


def operators_of(name: object, path: str) -> tuple[str, ...]:
    """The operators that a layer of this name is; the longest known ending of a dotted name counts.

    Raises:
        InputError: it is no text, or no known name.
    """
    if not isinstance(name, str):
        raise InputError("not the name of a layer", path=path, given=name, expected="a text")
    parts = name.split(".")
    for begin in range(len(parts)):
        operators = _OPERATORS.get(".".join(parts[begin:]))
        if operators is not None:
            return operators
    raise InputError(
        "unknown linear layer",
        path=path,
        given=name,
        expected="a name of a projection, for instance q_proj or mlp.c_proj",
        hint=did_you_mean(parts[-1], _OPERATORS),
    )
