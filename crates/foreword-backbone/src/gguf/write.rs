//! Writes a model as a GGUF file: its tensors in a chosen format, its configuration and its tokenizer as metadata.

use std::io::Write;

use foreword_kernels::{Dtype, NormKind, Weights};

use super::names::{self, Architecture};
use super::{ALIGNMENT, DTYPES, Gguf, tokenizer};
use crate::backbone::read_model_config;
use crate::config::{HfConfig, end_tokens};
use crate::error::BackboneError;
use crate::families::{self, Names};
use crate::files::ModelFiles;
use crate::notice::Notice;
use crate::rotary::divisors;
use crate::spec::{Positions, Rope, RopeScaling, Spec};
use crate::spec_diff::differences;
use crate::tensors::Tensors;

/// Numbers of a tensor that are encoded at a time.
const CHUNK: usize = 1 << 20;

/// The format of a model's matrices in a GGUF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantisation {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// Brain floating point.
    Bf16,
    /// Eight bits.
    Q8_0,
    /// Four bits with minima; the vocabulary in six bits.
    Q4K,
    /// Four bits in small blocks; the vocabulary in eight bits.
    Q4_0,
}

impl Quantisation {
    /// Every one.
    pub const ALL: [Self; 6] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4K, Self::Q4_0];

    /// Its name: `f32`, `f16`, `bf16`, `q8_0`, `q4_k`, `q4_0`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.dtypes().0.name()
    }

    /// The format of matrices, and that of the embedding table and the head, which affect every row.
    fn dtypes(self) -> (Dtype, Dtype) {
        match self {
            Self::F32 => (Dtype::F32, Dtype::F32),
            Self::F16 => (Dtype::F16, Dtype::F16),
            Self::Bf16 => (Dtype::Bf16, Dtype::Bf16),
            Self::Q8_0 => (Dtype::Q8_0, Dtype::Q8_0),
            Self::Q4K => (Dtype::Q4K, Dtype::Q6K),
            Self::Q4_0 => (Dtype::Q4_0, Dtype::Q8_0),
        }
    }

    /// `general.file_type`: the format of most of the file.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4K => 15,
            Self::Bf16 => 32,
        }
    }
}

/// The format for rows of this width: the preferred one, or the next larger one whose blocks fit.
fn fitting(preferred: Dtype, width: usize) -> Dtype {
    let fits = |dtype: Dtype| width.is_multiple_of(dtype.block().0);
    [preferred, Dtype::Q8_0, Dtype::F16].into_iter().find(|&dtype| fits(dtype)).unwrap_or(Dtype::F16)
}

/// The result of [`write_gguf`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufSummary {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the weights that were read.
    pub source_bytes: u64,
    /// Tensors and numbers in each format, largest share first.
    pub formats: Vec<(Dtype, usize, u64)>,
    /// Matrices in another format than the chosen one, because their rows are not whole blocks.
    pub n_fallback: usize,
    /// The file has no tokenizer for programs that read only GGUF metadata: it can't be expressed there.
    pub lacks_tokenizer: bool,
    /// What was left out.
    pub notice: Option<Notice>,
}

/// A tensor to write.
struct Tensor {
    name: String,
    weights: Weights,
    dtype: Dtype,
    /// One dimension.
    vector: bool,
    /// Width of the heads whose rows are written interleaved.
    interleaved: Option<usize>,
    offset: u64,
}

impl Tensor {
    fn n_bytes(&self) -> u64 {
        let row = self.dtype.bytes(self.weights.cols()).unwrap_or(0) as u64;
        row * self.weights.rows() as u64
    }

    fn n_numbers(&self) -> u64 {
        (self.weights.rows() * self.weights.cols()) as u64
    }

    /// The row of the weights that is row `row` of the file.
    fn source(&self, row: usize) -> usize {
        match self.interleaved {
            None => row,
            Some(width) => {
                let (first, i) = (row - row % width, row % width);
                first + i / 2 + i % 2 * (width / 2)
            }
        }
    }
}

/// The tensors of a file, in order.
struct Layout<'a> {
    spec: &'a Spec,
    names: &'a Names,
    rope_interleaved: bool,
    to: Quantisation,
    tensors: Vec<Tensor>,
    n_fallback: usize,
}

impl Layout<'_> {
    fn add(&mut self, name: &str, weights: Weights, vector: bool) {
        let interleaved =
            (self.rope_interleaved && names::is_query_or_key(name)).then_some(self.spec.attention.head_width);
        // Positions are few and affect every row.
        let preferred = match name {
            _ if vector => Dtype::F32,
            "position_embd.weight" => Dtype::F32,
            "token_embd.weight" | "output.weight" => self.to.dtypes().1,
            _ => self.to.dtypes().0,
        };
        let dtype = fitting(preferred, weights.cols());
        self.n_fallback += usize::from(dtype != preferred);
        // If a vector is reordered, its numbers are rows.
        let weights = match interleaved {
            Some(_) if vector => Weights::from_f32(&weights.to_f32(), 1),
            _ => weights,
        };
        self.tensors.push(Tensor { name: name.to_owned(), weights, dtype, vector, interleaved, offset: 0 });
    }

    /// Takes all tensors that GGUF has a name for.
    fn take(&mut self, tensors: &mut Tensors) -> Result<(), BackboneError> {
        let input_first = self.names.transposed;
        for (gguf_name, family_name) in names::all(self.names, self.spec.layers) {
            if self.spec.head.tied && gguf_name.starts_with("output.") {
                continue;
            }
            match tensors.shape(&family_name).map(<[usize]>::to_vec).as_deref() {
                None => {}
                Some(&[n]) => {
                    let mut values = tensors.vector(&family_name, n)?;
                    if gguf_name.ends_with("norm.weight") {
                        values.iter_mut().for_each(|gain| *gain += self.names.gain_offset);
                    }
                    self.add(&gguf_name, Weights::from_f32(&values, n.max(1)), true);
                }
                Some(&[rows, cols]) => {
                    let matrix = tensors.matrix(&family_name, rows, cols)?;
                    let is_table = family_name.starts_with(self.names.embeddings)
                        || gguf_name.starts_with("position_embd");
                    let transposed = input_first && !is_table && !gguf_name.starts_with("output.");
                    self.add(&gguf_name, if transposed { matrix.transposed() } else { matrix }, false);
                }
                Some(other) => {
                    let detail = format!("tensor `{family_name}` has the shape {other:?}");
                    return Err(BackboneError::Unwritable { detail });
                }
            }
        }
        Ok(())
    }

    /// Assigns the tensors' offsets and returns their size.
    fn place(&mut self) -> u64 {
        let mut at = 0u64;
        for tensor in &mut self.tensors {
            tensor.offset = at;
            at = (at + tensor.n_bytes()).next_multiple_of(ALIGNMENT);
        }
        at
    }
}

/// Metadata in its serialised form.
#[derive(Default)]
struct Metadata {
    bytes: Vec<u8>,
    n: u64,
}

impl Metadata {
    fn text_bytes(&mut self, text: &str) {
        self.bytes.extend((text.len() as u64).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    fn key(&mut self, key: &str, kind: u32) {
        self.n += 1;
        self.text_bytes(key);
        self.bytes.extend(kind.to_le_bytes());
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key, 8);
        self.text_bytes(text);
    }

    fn count(&mut self, key: &str, n: usize) {
        self.key(key, 4);
        self.bytes.extend(u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn number(&mut self, key: &str, number: f64) {
        self.key(key, 6);
        self.bytes.extend((number as f32).to_le_bytes());
    }

    fn flag(&mut self, key: &str, flag: bool) {
        self.key(key, 7);
        self.bytes.push(flag.into());
    }

    fn array(&mut self, key: &str, kind: u32, n: usize) {
        self.key(key, 9);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((n as u64).to_le_bytes());
    }

    fn texts(&mut self, key: &str, texts: &[String]) {
        self.array(key, 8, texts.len());
        for text in texts {
            self.text_bytes(text);
        }
    }
}

fn unwritable(detail: impl Into<String>) -> BackboneError {
    BackboneError::Unwritable { detail: detail.into() }
}

/// Writes the architecture's keys.
fn describe(spec: &Spec, architecture: &str, metadata: &mut Metadata) {
    let at = |key: &str| format!("{architecture}.{key}");
    let attention = &spec.attention;
    let mut count = |key: &str, n: usize| metadata.count(&at(key), n);
    count("context_length", spec.context);
    count("embedding_length", spec.hidden);
    count("block_count", spec.layers);
    count("feed_forward_length", spec.mlp.intermediate);
    count("attention.head_count", attention.query_heads);
    if spec.positions == Positions::Rotary {
        count("attention.head_count_kv", attention.kv_heads);
        count("vocab_size", spec.vocab);
        count("attention.key_length", attention.head_width);
        count("attention.value_length", attention.head_width);
    }
    let windows = spec.pattern.iter().filter_map(|kind| kind.window);
    if let Some(window) = windows.max() {
        count("attention.sliding_window", window);
        let pattern =
            spec.pattern.iter().position(|kind| kind.window.is_none()).map_or(spec.layers + 1, |i| i + 1);
        if architecture == "gemma3" && pattern != 6 {
            count("attention.sliding_window_pattern", pattern);
        }
    }
    match spec.norm {
        NormKind::Rms { eps } => metadata.number(&at("attention.layer_norm_rms_epsilon"), eps),
        NormKind::Layer { eps } => metadata.number(&at("attention.layer_norm_epsilon"), eps),
    }
    for (key, cap) in [("attn", attention.soft_cap), ("final", spec.head.soft_cap)] {
        if let Some(cap) = cap {
            metadata.number(&at(&format!("{key}_logit_softcapping")), cap);
        }
    }
    if let Some(scale) = attention.scale {
        metadata.number(&at("attention.scale"), scale);
    }
    let full_attention = spec.pattern.iter().find(|kind| kind.window.is_none()).or(spec.pattern.first());
    if let Some(rope) = full_attention.and_then(|kind| kind.rope.as_ref()) {
        describe_rope(rope, &at, metadata);
        let local =
            spec.pattern.iter().find(|kind| kind.window.is_some()).and_then(|kind| kind.rope.as_ref());
        if let Some(local) = local.filter(|local| local.theta != rope.theta) {
            metadata.number(&at("rope.freq_base_swa"), local.theta);
        }
    }
}

fn describe_rope(rope: &Rope, at: &impl Fn(&str) -> String, metadata: &mut Metadata) {
    metadata.count(&at("rope.dimension_count"), rope.width);
    metadata.number(&at("rope.freq_base"), rope.theta);
    match rope.scaling {
        RopeScaling::Linear { factor } => {
            metadata.text(&at("rope.scaling.type"), "linear");
            metadata.number(&at("rope.scaling.factor"), factor);
        }
        RopeScaling::Llama3 { original_context, .. } => {
            metadata.count(&at("rope.scaling.original_context_length"), original_context);
        }
        RopeScaling::Yarn { factor, original_context, .. } => {
            metadata.text(&at("rope.scaling.type"), "yarn");
            metadata.number(&at("rope.scaling.factor"), factor);
            metadata.count(&at("rope.scaling.original_context_length"), original_context);
        }
        // Others are caught when the header is read back.
        RopeScaling::None | RopeScaling::Long { .. } => {}
    }
}

/// Reads the header back and checks that it describes the same model: GGUF can't express every model that Foreword reads.
fn check(header: &[u8], divisors: Option<&Tensor>, n_bytes: u64, spec: &Spec) -> Result<(), BackboneError> {
    let gguf = Gguf::parse_beginning("the file", header, n_bytes)?;
    // The only tensor that the configuration reads, at its place.
    let mut bytes = header.to_vec();
    if let Some(tensor) = divisors {
        bytes.resize(header.len() + tensor.offset as usize, 0);
        bytes.extend(tensor.weights.to_f32().iter().flat_map(|v| v.to_le_bytes()));
    }
    let config = super::config::translate(&gguf, &[&bytes]).map_err(|error| {
        let detail = if let BackboneError::GgufMetadata { detail, .. } = &error { detail } else { "" };
        unwritable(format!("GGUF can't express all of it ({detail})"))
    })?;
    let config = config.to_string();
    let config = HfConfig::parse(config.as_bytes())?;
    let reparsed = (families::find(&config)?.spec)(&config)?;
    config.finish().map_err(|error| match error {
        BackboneError::UnknownKeys { keys, .. } => {
            unwritable(format!("GGUF can't express all of it (`{}` is not read back)", keys.join("`, `")))
        }
        other => other,
    })?;
    let differences = differences(&reparsed.canonical(), &spec.canonical());
    if differences.is_empty() {
        return Ok(());
    }
    Err(unwritable(format!("GGUF can't express it: it would be read back with {differences}")))
}

/// Writes the tokenizer as GGUF metadata if it can be expressed, and as a whole `tokenizer.json`. Returns whether it could.
fn describe_tokenizer(files: &ModelFiles, metadata: &mut Metadata) -> Result<bool, BackboneError> {
    let json = files.tokenizer.json();
    let json = std::str::from_utf8(&json).map_err(|_| unwritable("its tokenizer.json is no UTF-8"))?;
    let ends = end_tokens(&files.config, files.generation_config.as_deref())?;
    for (key, &token) in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"].iter().zip(&ends) {
        metadata.count(key, token as usize);
    }
    let gguf_tokenizer = tokenizer::from_json(json.as_bytes());
    if let Some(gguf_tokenizer) = &gguf_tokenizer {
        metadata.text("tokenizer.ggml.model", gguf_tokenizer.model);
        metadata.text("tokenizer.ggml.pre", gguf_tokenizer.pre);
        metadata.texts("tokenizer.ggml.tokens", &gguf_tokenizer.tokens);
        metadata.array("tokenizer.ggml.token_type", 5, gguf_tokenizer.kinds.len());
        gguf_tokenizer.kinds.iter().for_each(|kind| metadata.bytes.extend(kind.to_le_bytes()));
        if let Some(scores) = &gguf_tokenizer.scores {
            metadata.array("tokenizer.ggml.scores", 6, scores.len());
            scores.iter().for_each(|score| metadata.bytes.extend(score.to_le_bytes()));
            metadata.flag("tokenizer.ggml.add_space_prefix", gguf_tokenizer.add_space_prefix);
        }
        if let Some(merges) = &gguf_tokenizer.merges {
            metadata.texts("tokenizer.ggml.merges", merges);
        }
        for (key, token) in [("bos", gguf_tokenizer.bos), ("unknown", gguf_tokenizer.unknown)] {
            if let Some(token) = token {
                metadata.count(&format!("tokenizer.ggml.{key}_token_id"), token as usize);
            }
        }
        metadata.flag("tokenizer.ggml.add_bos_token", gguf_tokenizer.add_bos);
        metadata.flag("tokenizer.ggml.add_eos_token", false);
    }
    if let Some((config, template)) = tokenizer::chat_of(&files.chat) {
        if let Some(template) = template {
            metadata.text(tokenizer::CHAT_TEMPLATE, &template);
        }
        metadata.text(tokenizer::CHAT_CONFIG, &config);
    }
    metadata.text(tokenizer::HUGGINGFACE_JSON, json);
    Ok(gguf_tokenizer.is_some())
}

/// The file up to the first tensor.
fn header(layout: &Layout<'_>, metadata: &Metadata) -> Vec<u8> {
    let mut bytes = super::MAGIC.to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend((layout.tensors.len() as u64).to_le_bytes());
    bytes.extend(metadata.n.to_le_bytes());
    bytes.extend(&metadata.bytes);
    for tensor in &layout.tensors {
        bytes.extend((tensor.name.len() as u64).to_le_bytes());
        bytes.extend(tensor.name.as_bytes());
        let (rows, cols) = (tensor.weights.rows() as u64, tensor.weights.cols() as u64);
        let shape = if tensor.vector { vec![rows * cols] } else { vec![cols, rows] };
        bytes.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
        let number = DTYPES.iter().find(|(dtype, _)| *dtype == tensor.dtype).map_or(0, |(_, number)| *number);
        bytes.extend(number.to_le_bytes());
        bytes.extend(tensor.offset.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
    bytes
}

/// Writes a tensor, some rows at a time, and the padding up to the next.
fn write_tensor(tensor: &Tensor, out: &mut (impl Write + ?Sized)) -> Result<(), BackboneError> {
    let (rows, cols) = (tensor.weights.rows(), tensor.weights.cols());
    let rows_per_chunk = (CHUNK / cols.max(1)).max(1);
    let mut values = vec![0.0f32; rows_per_chunk.min(rows) * cols];
    for start in (0..rows).step_by(rows_per_chunk) {
        let n = rows_per_chunk.min(rows - start);
        let values = &mut values[..n * cols];
        for (i, row) in values.chunks_exact_mut(cols.max(1)).enumerate() {
            tensor.weights.read(tensor.source(start + i), 0..cols, row);
        }
        if values.iter().any(|value| !value.is_finite()) {
            return Err(BackboneError::NotFinite { name: tensor.name.clone() });
        }
        let bytes =
            tensor.dtype.encode(values).ok_or_else(|| unwritable(format!("tensor `{}`", tensor.name)))?;
        out.write_all(&bytes).map_err(BackboneError::Write)?;
    }
    let padding = tensor.n_bytes().next_multiple_of(ALIGNMENT) - tensor.n_bytes();
    out.write_all(&[0; ALIGNMENT as usize][..padding as usize]).map_err(BackboneError::Write)
}

/// Writes all tensors, and returns how many tensors and numbers each format has, largest share first.
fn write_tensors(
    tensors: &[Tensor],
    out: &mut (impl Write + ?Sized),
    mut progress: impl FnMut(f64) -> bool,
) -> Result<Vec<(Dtype, usize, u64)>, BackboneError> {
    let total: u64 = tensors.iter().map(Tensor::n_numbers).sum();
    let (mut done, mut formats) = (0u64, Vec::<(Dtype, usize, u64)>::new());
    for tensor in tensors {
        write_tensor(tensor, out)?;
        done += tensor.n_numbers();
        if !progress(done as f64 / total.max(1) as f64) {
            return Err(BackboneError::Stopped);
        }
        match formats.iter_mut().find(|(dtype, ..)| *dtype == tensor.dtype) {
            Some((_, n, numbers)) => {
                *n += 1;
                *numbers += tensor.n_numbers();
            }
            None => formats.push((tensor.dtype, 1, tensor.n_numbers())),
        }
    }
    formats.sort_by_key(|&(_, _, numbers)| std::cmp::Reverse(numbers));
    Ok(formats)
}

/// Writes a model as a GGUF file. `progress` receives the share of the numbers that are written, and returns whether to
/// continue.
///
/// # Errors
/// If the model can't be read, GGUF can't express it, a number is not finite, `out` can't be written, or `progress` stops.
pub fn write_gguf(
    files: &ModelFiles,
    to: Quantisation,
    out: &mut (impl Write + ?Sized),
    progress: impl FnMut(f64) -> bool,
) -> Result<GgufSummary, BackboneError> {
    let (family, spec) = read_model_config(files)?;
    let architecture = Architecture::of_family(family).ok_or_else(|| {
        unwritable(format!("models of the family {} are not written yet", family.model_type))
    })?;
    let names = (family.names)(&spec);
    let mut tensors = Tensors::read(files, &names)?;
    let names = &tensors.as_stored(&names);
    let mut layout = Layout {
        spec: &spec,
        names,
        rope_interleaved: architecture.rope_interleaved,
        to,
        tensors: Vec::new(),
        n_fallback: 0,
    };
    layout.take(&mut tensors)?;
    let rope = spec.pattern.first().and_then(|kind| kind.rope.as_ref());
    if let Some(rope) = rope.filter(|rope| matches!(rope.scaling, RopeScaling::Llama3 { .. })) {
        let divisors = divisors(rope);
        let name = names::FREQUENCY_FACTORS[0];
        // First, so that it lies near the beginning.
        layout.add(name, Weights::from_f32(&divisors, divisors.len().max(1)), true);
        layout.tensors.rotate_right(1);
    }
    let source_bytes = tensors.n_bytes();
    let heads: Vec<String> = names.heads.iter().map(|head| format!("{head}.weight")).collect();
    let mut ignored = names.no_weights.to_vec();
    if spec.head.tied {
        ignored.extend(heads.iter().map(String::as_str));
    }
    let notice = tensors.finish((family.model_type, names), &ignored)?;
    let data_bytes = layout.place();

    let mut metadata = Metadata::default();
    metadata.text("general.architecture", architecture.name);
    metadata.text("general.name", &files.name);
    metadata.count("general.file_type", to.file_type() as usize);
    metadata.count("general.quantization_version", 2);
    metadata.count("general.alignment", ALIGNMENT as usize);
    describe(&spec, architecture.name, &mut metadata);
    let has_tokenizer = describe_tokenizer(files, &mut metadata)?;
    let header = header(&layout, &metadata);
    let frequencies = layout.tensors.first().filter(|tensor| tensor.name == names::FREQUENCY_FACTORS[0]);
    check(&header, frequencies, header.len() as u64 + data_bytes, &spec)?;
    out.write_all(&header).map_err(BackboneError::Write)?;
    let formats = write_tensors(&layout.tensors, out, progress)?;
    Ok(GgufSummary {
        bytes: header.len() as u64 + data_bytes,
        source_bytes,
        formats,
        n_fallback: layout.n_fallback,
        lacks_tokenizer: !has_tokenizer,
        notice,
    })
}
