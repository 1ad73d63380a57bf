//! PEFT directories in formats other than ours: other methods, and files from before safetensors.

use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::{ADAPTER_FILE, Foreign, ForeignError, Tensor, damaged, prompt, torch};
use crate::adapter::{AdapterConfig, PeftTask};
use crate::directory::{PICKLE_FILE, PromptDirectory, TENSORS_FILE};
use crate::soft_prompt::SoftPrompt;

/// The fields read from `adapter_config.json` if its type is not one of ours.
#[derive(Deserialize)]
struct Config {
    peft_type: Option<String>,
    task_type: Option<String>,
    base_model_name_or_path: Option<String>,
}

/// Reads a directory.
pub(super) fn read(dir: &Path, task: Option<usize>) -> Result<Foreign, ForeignError> {
    let path = dir.join(ADAPTER_FILE);
    if !path.is_file() {
        return Err(ForeignError::Unknown { path: dir.to_owned() });
    }
    let config: Config = serde_json::from_slice(&super::read(&path)?)
        .map_err(|error| damaged(&path, format!("not what PEFT writes: {error}")))?;
    let kind = config.peft_type.clone().unwrap_or_default();
    let is_ours = matches!(kind.as_str(), "PROMPT_TUNING" | "P_TUNING" | "PREFIX_TUNING" | "CARTRIDGE");
    let is_shared = kind == "MULTITASK_PROMPT_TUNING";
    if task.is_some() && !is_shared {
        return Err(ForeignError::NoTasks { path: dir.to_owned() });
    }
    let format = format!("PEFT {kind}");
    if is_ours && dir.join(TENSORS_FILE).exists() {
        let PromptDirectory { rows, adapter, .. } = PromptDirectory::read(dir)?;
        let adapter = adapter.ok_or_else(|| ForeignError::Unknown { path: dir.to_owned() })?;
        return Ok(Foreign { rows, adapter, format, notes: Vec::new() });
    }
    // Prompts with rows of keys and values have only ever been written as safetensors with the required sizes.
    if matches!(kind.as_str(), "PREFIX_TUNING" | "CARTRIDGE") {
        return Err(damaged(&dir.join(PICKLE_FILE), "a KV prefix is read from safetensors only"));
    }
    let (tensors, file) = if dir.join(TENSORS_FILE).exists() {
        let file = dir.join(TENSORS_FILE);
        (safetensors(&super::read(&file)?, &file)?, file)
    } else {
        let file = dir.join(PICKLE_FILE);
        (torch::read(&super::read(&file)?, &file)?, file)
    };
    let (rows, mut notes) =
        if is_shared { (of_task(&tensors, &file, task)?, Vec::new()) } else { prompt(tensors, &file)? };
    let mut adapter = AdapterConfig::causal_lm(rows.n_virtual(), rows.width())?;
    adapter.base_model = config.base_model_name_or_path;
    adapter.task = match config.task_type.as_deref() {
        Some("SEQ_2_SEQ_LM") => Some(PeftTask::Seq2SeqLm),
        Some("CAUSAL_LM") | None => Some(PeftTask::CausalLm),
        Some(other) => {
            notes.push(format!("it was trained for {other}, of which only the rows of the prompt are taken"));
            Some(PeftTask::CausalLm)
        }
    };
    Ok(Foreign { rows, adapter, format, notes })
}

/// The prompt of one MPT task: the shared rows ∘ (columns · rows) of the task.
fn of_task(tensors: &[Tensor], path: &Path, task: Option<usize>) -> Result<SoftPrompt, ForeignError> {
    let named = |name: &str| {
        let tensor = tensors.iter().find(|tensor| tensor.name == name);
        tensor.ok_or_else(|| damaged(path, format!("the tensor {name} is missing")))
    };
    let (shared, columns, rows) =
        (named("prompt_embeddings")?, named("prefix_task_cols")?, named("prefix_task_rows")?);
    let (&[p, h], &[n, p2, r], &[n2, r2, h2]) = (&shared.shape[..], &columns.shape[..], &rows.shape[..])
    else {
        return Err(damaged(path, "its three tensors do not have 2, 3 and 3 dimensions"));
    };
    if (p, h, n, r) != (p2, h2, n2, r2) || n == 0 || r == 0 {
        let shapes = [shared, columns, rows].map(Tensor::described).join(", ");
        return Err(damaged(path, format!("its shapes do not belong together: {shapes}")));
    }
    let task =
        task.filter(|&task| task < n).ok_or_else(|| ForeignError::WhichTask { path: path.to_owned(), n })?;
    let (columns, rows) =
        (&columns.values[task * p * r..(task + 1) * p * r], &rows.values[task * r * h..(task + 1) * r * h]);
    let mut values = Vec::with_capacity(p * h);
    for (shared, columns) in shared.values.chunks_exact(h).zip(columns.chunks_exact(r)) {
        for (j, shared) in shared.iter().enumerate() {
            let product: f32 = columns.iter().zip(rows[j..].iter().step_by(h)).map(|(c, r)| c * r).sum();
            values.push(shared * product);
        }
    }
    Ok(SoftPrompt::new(values, p, h)?)
}

/// All tensors of a safetensors file. Integer tensors are returned without numbers.
fn safetensors(bytes: &[u8], path: &Path) -> Result<Vec<Tensor>, ForeignError> {
    let file =
        SafeTensors::deserialize(bytes).map_err(|error| damaged(path, format!("no safetensors: {error}")))?;
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F16 => data.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => data.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            Dtype::F32 => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F64 => data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
            _ => Vec::new(),
        };
        Tensor { name, shape: view.shape().to_vec(), values }
    };
    let mut tensors: Vec<Tensor> = file.tensors().into_iter().map(tensor).collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}
