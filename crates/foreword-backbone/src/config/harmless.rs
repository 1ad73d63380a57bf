//! Keys of `config.json` that never change what a decoder computes from embeddings to logits.

use serde_json::Value;

/// Keys of transformers itself: output, generation, heads of other tasks, dropout, initialisation.
const TRANSFORMERS: &str = "
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _auto_class _commit_hash
    _experts_implementation _name_or_path _num_labels activation_dropout add_cross_attention architectures
    assistant_confidence_threshold attention_dropout attention_dropout_prob attention_probs_dropout_prob attn_dropout
    attn_dropout_prob attn_implementation attn_pdrop auto_map bad_words_ids base_model_ep_plan base_model_fsdp_plan
    base_model_pp_plan base_model_tp_plan begin_suppress_tokens bos_token bos_token_id cache_config cache_implementation
    chunk_size_feed_forward classifier_bias classifier_dropout classifier_dropout_prob cls_token_id compile_config constraints
    cross_attention_hidden_size custom_pipeline custom_pipelines decoder_start_token_id disable_compile diversity_penalty do_sample dola_layers
    dropout dropout_rate dtype early_stopping emb_dropout_prob embd_pdrop embedding_dropout encoder_no_repeat_ngram_size
    encoder_repetition_penalty eod_token_id eos_token eos_token_id ep_plan epsilon_cutoff eta_cutoff
    exponential_decay_length_penalty ffn_dropout finetuning_task force_words_ids forced_bos_token_id forced_decoder_ids
    forced_eos_token_id gradient_checkpointing gradient_checkpointing_kwargs guidance_scale hidden_dropout hidden_dropout_prob
    id2label init_config init_device init_method init_scale init_std initializer_cutoff_factor initializer_factor
    initializer_range is_assistant is_decoder keys_to_ignore_at_inference label2id layer_dropout layerdrop length_penalty
    loss_type low_memory mask_token_id max_length max_new_tokens max_time min_length min_new_tokens min_p mlp_dropout
    model_type neftune_noise_alpha no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule num_beam_groups
    num_beams num_labels num_return_sequences output_attentions output_hidden_states output_logits output_past
    output_router_logits output_scores pad_token pad_token_id penalty_alpha predict_special_tokens prefix problem_type
    prompt_lookup_num_tokens remove_invalid_values renormalize_logits repetition_penalty resid_dropout resid_dropout_prob
    resid_pdrop residual_dropout return_dict return_dict_in_generate return_legacy_cache rope_dropout router_aux_loss_coef
    router_jitter_noise sep_token_id sequence_bias stop_strings sub_configs summary_activation summary_first_dropout
    summary_hidden_size summary_proj_to_labels summary_type summary_use_proj suppress_tokens task_specific_params temperature
    tf_legacy_loss tie_encoder_decoder token_healing tokenizer_class top_h top_k top_p torch_dtype torchscript tp_plan
    transformers.js_config transformers_version transformers_weights typical_p unk_token unk_token_id use_bfloat16 use_cache
    use_model_defaults use_return_dict watermarking_config
";

/// Notes of those who trained, converted or published a model: names, tokenizer, training, kernels, parallelism.
const NOTES: &str = "
    _model_name_or_path _sliding_window_pattern add_bos_token add_eos_token adam_beta1 adam_beta2 adam_epsilon
    attention_softmax_in_fp32 author aux_loss_coef axolotl_config base_model base_model_name base_model_name_or_path batch_size
    bf16 bias_dropout_fusion bos_id build_commit chat_format chat_template citation commit_hash conversation_template
    created_at dataset datasets deepspeed description distributed_strategy ds_config end_of_text_token_id eos_id epochs
    final_dropout finetuned_from flash_attention flash_attention_recompute flash_attn fp16 fp32 freeze_layers
    freeze_trainable_layers fsdp fuse_cross_entropy fused_bias_fc fused_cross_entropy fused_dropout_add_ln fused_mlp
    fused_rotary_emb grad_clip gradient_accumulation_steps head_dropout homepage image_token_id im_end_id im_start_id
    label_smoothing label_smoothing_factor language languages learning_rate library_name license line_by_line logging_steps
    loss_reduction n_vocab num_key_value_groups use_deepspeed_checkpointing use_return_tuple _flash_attn_2_enabled
    lr lr_scheduler_type make_vocab_size_divisible_by max_grad_norm max_seq_len_trained max_sequence_length max_steps
    max_window_layers merges_file mergekit_config micro_batch_size mixed_precision model_id model_input_names
    model_max_length model_name model_name_or_path model_revision model_source model_version name_or_path
    num_gpus num_train_epochs organization original_vocab_size pad_id pad_vocab_size_multiple padded_vocab_size padding_side
    parallel_loss_enabled param_dtype params_dtype parent_model pipeline_parallel_size pipeline_tag precision pretrained_model
    pretraining_tp publisher quantized_by recompute rescale_lm_head_loss residual_in_fp32 revision save_steps seed
    sentence_transformers sequence_parallel sequence_parallel_enabled skip_bias_add sliding_window_pattern
    special_tokens_map summary tags task tensor_model_parallel_size tensor_parallel_degree tensor_parallel_output
    tensor_parallel_size tokenizer tokenizer_file tokenizer_model_max_length tokenizer_name tokenizer_name_or_path
    tokenizer_padding_side tokenizer_path tokenizer_type train_batch_size trained_on training_args training_config training_data
    truncation_side unpadded_vocab_size unsloth_fixed unsloth_version url use_cache_kernel use_cache_quantization use_deepspeed
    use_fast use_flash_attention use_flash_attention_2 use_flash_attn use_flash_attn_2 use_flash_attn_cross_entropy
    use_flash_attn_fused_mlp use_flash_attn_rms_norm use_flash_attn_rotary use_fused_cross_entropy use_fused_linear_cross_entropy
    use_fused_mlp use_fused_rms_norm use_fused_rope use_fused_swiglu use_liger_kernel use_memory_efficient_attention
    use_recompute use_sdpa use_xformers version virtual_pp_degree vocab_file wandb_project warmup_ratio warmup_steps
    weight_decay z_loss z_loss_coef z_loss_coefficient z_loss_weight
";

/// Keys of rotations (`rope_scaling`, `rope_parameters`) without effect.
const OF_ROTATIONS: &[&str] = &["finetuned"];

/// Keys that are on in every decoder here: only false would change something.
const ON: &[&str] = &[
    "add_final_layer_norm",
    "add_final_norm",
    "causal",
    "causal_attention",
    "causal_mask",
    "is_causal",
    "scale_attention",
    "scale_attn",
    "scale_attn_weights",
    "use_causal_mask",
    "use_final_norm",
    "use_rope",
    "use_rotary_embeddings",
];

/// Whether a value says that its key is not used.
pub(super) fn means_absent(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(keys) => keys.is_empty(),
        _ => false,
    }
}

/// Whether a key that the family does not read has no effect with this value. `prefix`: the object that it is in.
pub(super) fn is_harmless(prefix: &str, key: &str, value: &Value) -> bool {
    // Keys of a GGUF file have the architecture before a dot.
    let name = key.rsplit('.').next().unwrap_or(key);
    if ON.contains(&name) {
        return value.is_null() || *value == Value::Bool(true);
    }
    if means_absent(value) {
        return true;
    }
    if !["", "text_config."].contains(&prefix) {
        return OF_ROTATIONS.contains(&key);
    }
    // The same attention in all layers.
    let full = |kind: &Value| kind.as_str() == Some("full_attention");
    let plain_layers = key == "layer_types" && value.as_array().is_some_and(|kinds| kinds.iter().all(full));
    plain_layers
        || [TRANSFORMERS, NOTES].iter().flat_map(|keys| keys.split_whitespace()).any(|known| known == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_count_by_their_value() {
        for value in [json!(null), json!(false), json!(""), json!([]), json!({})] {
            assert!(
                is_harmless("", "use_mrope", &value) && is_harmless("rope_scaling.", "x", &value),
                "{value}"
            );
        }
        for value in [json!(true), json!(0), json!(0.0), json!("x"), json!([0]), json!({ "a": null })] {
            assert!(!is_harmless("", "use_mrope", &value), "{value}");
        }
        // Off would be another model.
        assert!(is_harmless("", "is_causal", &json!(true)) && is_harmless("", "is_causal", &json!(null)));
        assert!(!is_harmless("", "family.attention.causal", &json!(false)));
        assert!(!is_harmless("", "is_causal", &json!(false)) && !is_harmless("", "use_rope", &json!(false)));
        assert!(is_harmless("", "layer_types", &json!(["full_attention", "full_attention"])));
        assert!(!is_harmless("", "layer_types", &json!(["full_attention", "sliding_attention"])));
        assert!(
            is_harmless("", "unsloth_fixed", &json!(true))
                && !is_harmless("rope_scaling.", "seed", &json!(1))
        );
        assert!(is_harmless("rope_scaling.", "finetuned", &json!(true)));
    }

    #[test]
    fn no_key_is_listed_twice_or_read_by_a_family() {
        let mut keys: Vec<&str> =
            [TRANSFORMERS, NOTES].iter().flat_map(|keys| keys.split_whitespace()).collect();
        let n = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), n);
        for key in [
            "hidden_act",
            "sliding_window",
            "rope_scaling",
            "logit_scale",
            "tie_word_embeddings",
            "quantization_config",
        ] {
            assert!(!keys.contains(&key), "{key}");
        }
    }
}
