"""The keys of MerakArguments that say nothing about inference, and the ones that must be refused."""

from __future__ import annotations

from typing import Final

from pe_sim.config.model_fields import KeyRules, Refusal

# Merak's own, beside those that a plan is made of.
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

# Of transformers' TrainingArguments, which MerakArguments is derived from: training, data, logging and hardware.
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
