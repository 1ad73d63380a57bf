//! Models of a few numbers, one per family: as small as a corpus should be.

use serde_json::{Map, Value, json};

/// The families' names.
pub(crate) const FAMILIES: [&str; 3] = ["llama", "qwen2", "gpt2"];

/// The `config.json` of a family's model: 4 wide, 1 layer, 2 heads, 3 tokens.
pub(crate) fn config(family: &str) -> Vec<u8> {
    let config = match family {
        "gpt2" => json!({
            "model_type": "gpt2", "n_embd": 4, "n_head": 2, "n_layer": 1, "n_positions": 4, "n_inner": 2, "vocab_size": 3
        }),
        _ => json!({
            "model_type": family, "hidden_size": 4, "num_attention_heads": 2, "num_key_value_heads": 1,
            "num_hidden_layers": 1, "intermediate_size": 2, "vocab_size": 3, "max_position_embeddings": 4,
            "rope_theta": 100.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": family == "qwen2"
        }),
    };
    config.to_string().into_bytes()
}

/// Names and shapes of the tensors that `config` asks for.
fn tensors(family: &str) -> Vec<(String, Vec<usize>)> {
    let named = |prefix: &str, tensors: &[(&str, &[usize])]| -> Vec<(String, Vec<usize>)> {
        tensors.iter().map(|(name, shape)| (format!("{prefix}{name}"), shape.to_vec())).collect()
    };
    if family == "gpt2" {
        let mut all = named("transformer.", &[("wte.weight", &[3, 4]), ("wpe.weight", &[4, 4])]);
        all.extend(named("transformer.", &[("ln_f.weight", &[4]), ("ln_f.bias", &[4])]));
        let layer: [(&str, &[usize]); 12] = [
            ("ln_1.weight", &[4]),
            ("ln_1.bias", &[4]),
            ("attn.c_attn.weight", &[4, 12]),
            ("attn.c_attn.bias", &[12]),
            ("attn.c_proj.weight", &[4, 4]),
            ("attn.c_proj.bias", &[4]),
            ("ln_2.weight", &[4]),
            ("ln_2.bias", &[4]),
            ("mlp.c_fc.weight", &[4, 2]),
            ("mlp.c_fc.bias", &[2]),
            ("mlp.c_proj.weight", &[2, 4]),
            ("mlp.c_proj.bias", &[4]),
        ];
        all.extend(named("transformer.h.0.", &layer));
        return all;
    }
    let mut all = named("model.", &[("embed_tokens.weight", &[3, 4]), ("norm.weight", &[4])]);
    let layer: [(&str, &[usize]); 9] = [
        ("input_layernorm.weight", &[4]),
        ("self_attn.q_proj.weight", &[4, 4]),
        ("self_attn.k_proj.weight", &[2, 4]),
        ("self_attn.v_proj.weight", &[2, 4]),
        ("self_attn.o_proj.weight", &[4, 4]),
        ("post_attention_layernorm.weight", &[4]),
        ("mlp.gate_proj.weight", &[2, 4]),
        ("mlp.up_proj.weight", &[2, 4]),
        ("mlp.down_proj.weight", &[4, 2]),
    ];
    all.extend(named("model.layers.0.", &layer));
    if family == "qwen2" {
        let biases: [(&str, &[usize]); 3] =
            [("q_proj.bias", &[4]), ("k_proj.bias", &[2]), ("v_proj.bias", &[2])];
        all.extend(named("model.layers.0.self_attn.", &biases));
    } else {
        all.extend(named("", &[("lm_head.weight", &[3, 4])]));
    }
    all
}

/// The `model.safetensors` of a family's model.
#[must_use]
pub(crate) fn weights(family: &str) -> Vec<u8> {
    let (mut header, mut body) = (Map::new(), Vec::new());
    for (name, shape) in tensors(family) {
        let start = body.len();
        for i in 0..shape.iter().product::<usize>() {
            body.extend_from_slice(&((i as f32 + 1.0).sin()).to_le_bytes());
        }
        let offsets = [start, body.len()];
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets }));
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &body].concat()
}
