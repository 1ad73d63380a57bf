//! Decoders that nobody has ever seen: configurations drawn at random, with as many random tensors as they ask for. The fast
//! kernels agree with the reference in double precision, forward and backward, and the forest with copies.

use std::collections::BTreeMap;

use foreword_backbone::{Backbone, BackboneError, ModelFiles};
use foreword_kernels::{Backend, Bytes, Cpu, Reference};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};

use crate::forest::{copies, distance, forest};
use crate::golden::{root, tiny_models};

/// Several times what single precision rounds off a number; what so little does to a result tells how well it can be known.
const NOISE: f64 = 1e-6;

/// Values that keys of a configuration may take; a key that the family's file does not have stays away.
fn values(key: &str) -> Vec<Value> {
    let values = |values: &[i64]| values.iter().map(|&v| v.into()).collect();
    match key {
        "num_attention_heads" | "n_head" => values(&[1, 2, 3, 4, 6]),
        "num_key_value_heads" | "num_kv_heads" => values(&[1, 2, 3]),
        "num_hidden_layers" | "n_layer" => values(&[1, 2, 3]),
        "hidden_size" | "n_embd" | "n_embed" => values(&[24, 48, 96]),
        "head_dim" => values(&[4, 10, 16]),
        "intermediate_size" | "ffn_dim" | "ffn_hidden_size" => values(&[8, 33]),
        "vocab_size" => values(&[101, 128]),
        "sliding_window" => vec![json!(null), json!(1), json!(4), json!(50)],
        "attention_bias"
        | "mlp_bias"
        | "bias"
        | "use_qkv_bias"
        | "enable_bias"
        | "tie_word_embeddings"
        | "use_parallel_residual"
        | "qk_layernorm"
        | "use_qk_norm"
        | "parallel_attn"
        | "multi_query"
        | "use_sliding_window" => vec![json!(false), json!(true)],
        "attn_logit_softcapping" | "final_logit_softcapping" => vec![json!(null), json!(0.8), json!(20.0)],
        "hidden_act" | "activation_function" | "activation" => {
            ["silu", "gelu", "gelu_new", "relu"].map(|v| json!(v)).into()
        }
        "rope_theta" | "rotary_emb_base" => vec![json!(100.0), json!(10_000.0)],
        "residual_multiplier" | "embedding_multiplier" | "logit_scale" => vec![json!(0.5), json!(2.0)],
        _ => Vec::new(),
    }
}

/// A family's configuration with its keys redrawn.
fn drawn(name: &str, picks: &[usize]) -> Map<String, Value> {
    let path = root().join("testdata/models").join(name).join("config.json");
    let mut config: Map<String, Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut picks = picks.iter().cycle();
    for (key, value) in &mut config {
        let (values, pick) = (values(key), picks.next().unwrap());
        if !values.is_empty() {
            *value = values[pick % values.len()].clone();
        }
    }
    // Lists by layer, or by number of a head, are of one size only.
    for key in ["layer_types", "no_rope_layers", "rope_scaling", "word_embed_proj_dim"] {
        config.remove(key);
    }
    config
}

/// Shapes of tensors, by name.
#[derive(Default)]
struct Tensors(BTreeMap<String, Vec<usize>>);

impl Tensors {
    /// Numbers that vary, each off by up to `noise` of itself, in the pattern of a `phase`.
    fn numbers(name: &str, shape: &[usize], (noise, phase): (f64, f64)) -> Vec<u8> {
        let seed = name.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        // So that attention spreads over several rows: else gradients vanish in single precision.
        let size = if let [_, cols] = shape[..] { 1.5 / (cols as f64).sqrt() } else { 0.4 };
        let number = |i: usize| (((seed % 1000) as f64 + i as f64 * 1.7) * 0.61).sin() * size;
        let offset = if shape.len() == 1 { 0.7 } else { 0.0 };
        let off = |i: usize| 1.0 + noise * (i as f64 * 2.39 + phase * (i % 7) as f64).cos();
        let n = shape.iter().product::<usize>();
        (0..n).flat_map(|i| (((number(i) + offset) * off(i)) as f32).to_le_bytes()).collect()
    }

    fn file(&self, noise: (f64, f64)) -> Vec<u8> {
        let numbers: Vec<Vec<u8>> =
            self.0.iter().map(|(name, shape)| Self::numbers(name, shape, noise)).collect();
        let view = |shape: &Vec<usize>, bytes| TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        let views = self.0.iter().zip(&numbers).map(|((name, shape), bytes)| (name, view(shape, bytes)));
        safetensors::serialize(views, None).unwrap()
    }
}

/// Files of a model with that configuration, and of some whose weights are off by [`NOISE`], each in its own pattern: one
/// alone may happen to change little. `None`: it is refused.
fn files(config: &Map<String, Value>) -> Option<(ModelFiles, [ModelFiles; 3])> {
    let mut tensors = Tensors::default();
    // A file without tensors would be refused for another reason.
    tensors.0.insert("rotary_emb.inv_freq".into(), vec![1]);
    let files = |tensors: &Tensors, noise| {
        let mut files = ModelFiles::directory(&root().join("testdata/models/llama-tiny")).unwrap();
        files.config = serde_json::to_vec(config).unwrap();
        files.weights = vec![("model.safetensors".into(), Bytes::from(tensors.file(noise)))];
        files
    };
    loop {
        let exact = files(&tensors, (0.0, 0.0));
        match Backbone::load(&exact, Cpu::new(1).unwrap()) {
            Ok(_) => return Some((exact, [0.0, 1.0, 2.0].map(|phase| files(&tensors, (NOISE, phase))))),
            Err(BackboneError::MissingTensor { name, shape }) => {
                tensors.0.insert(name, shape);
            }
            Err(BackboneError::LeftoverTensors { .. }) => {
                tensors.0.remove("rotary_emb.inv_freq")?;
            }
            Err(_) => return None,
        }
    }
}

fn load<B: Backend>(files: &ModelFiles, backend: B) -> Backbone<B> {
    Backbone::load(files, backend).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, max_global_rejects: 4000, ..ProptestConfig::default() })]

    #[test]
    fn any_decoder_is_the_same_on_every_backend(
        family: usize, picks in proptest::collection::vec(any::<usize>(), 24)
    ) {
        let names = tiny_models();
        let config = drawn(&names[family % names.len()], &picks);
        let Some((files, noisy)) = files(&config) else { return Err(TestCaseError::reject("refused")) };
        let exact = load(&files, Reference::<f64>::new());
        let fast = load(&files, Cpu::new(2).unwrap());
        let (expected, got, apart) = (copies(&exact), forest(&fast, &[3]), forest(&exact, &[1, 2]));
        // Behind narrow windows hardly anything of the learned rows is left.
        let length = expected.gradient.iter().map(|v| v * v).sum::<f64>().sqrt();
        prop_assume!(length > 1e-6);
        // A norm of what nearly cancels makes much of the last bit.
        let noisy = noisy.map(|files| copies(&load(&files, Reference::<f64>::new())));
        let hidden = noisy.iter().map(|noisy| distance(&noisy.hidden, &expected.hidden));
        let gradient = noisy.iter().map(|noisy| distance(&noisy.gradient, &expected.gradient));
        let hidden_bound = (10.0 * hidden.fold(0.0, f64::max)).max(3e-5);
        let gradient_bound = (10.0 * gradient.fold(0.0, f64::max)).max(1e-3);
        for (what, apart, bound) in [
            ("forest and copies, hidden", distance(&apart.hidden, &expected.hidden), 1e-10),
            ("forest and copies, gradient", distance(&apart.gradient, &expected.gradient), 1e-9),
            ("fast and reference, hidden", distance(&got.hidden, &expected.hidden), hidden_bound),
            ("fast and reference, gradient", distance(&got.gradient, &expected.gradient), gradient_bound),
        ] {
            prop_assert!(apart < bound, "{what}: {apart:e}, not below {bound:e}, of {config:?}");
        }
        let logits = |b: &Backbone<Cpu>| {
            let hidden = expected.hidden.iter().map(|&v| v as f32).collect();
            b.logits(&b.backend().rows(hidden, b.spec().hidden))
        };
        prop_assert!(logits(&fast).iter().all(|logit| logit.is_finite()));
    }
}
