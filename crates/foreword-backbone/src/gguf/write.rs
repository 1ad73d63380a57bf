//! A model as a GGUF file: its tensors in a format of choice, its configuration and its tokenizer as metadata.

use std::io::Write;

use foreword_kernels::{Dtype, NormKind, Weights};

use super::names::{self, Architecture};
use super::{ALIGNMENT, Gguf, tokenizer};
use crate::config::{HfConfig, end_tokens};
use crate::error::BackboneError;
use crate::families::{self, Names};
use crate::files::ModelFiles;
use crate::identity::differences;
use crate::rotary::divisors;
use crate::spec::{Positions, Rope, RopeScaling, Spec};
use crate::tensors::Tensors;

/// ggml's numbers of the formats.
pub(crate) const NUMBERS: [(Dtype, u32); 9] = [
    (Dtype::F32, 0),
    (Dtype::F16, 1),
    (Dtype::Q4_0, 2),
    (Dtype::Q5_0, 6),
    (Dtype::Q8_0, 8),
    (Dtype::Q4K, 12),
    (Dtype::Q5K, 13),
    (Dtype::Q6K, 14),
    (Dtype::Bf16, 30),
];
/// Numbers of a tensor that are encoded at a time.
const PIECE: usize = 1 << 20;

/// In what a model's matrices are written.
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
        self.dtype().name()
    }

    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::Bf16,
            Self::Q8_0 => Dtype::Q8_0,
            Self::Q4K => Dtype::Q4K,
            Self::Q4_0 => Dtype::Q4_0,
        }
    }

    /// The format of the embedding table and the head, which shows in every row.
    fn vocabulary(self) -> Dtype {
        match self {
            Self::Q4K => Dtype::Q6K,
            Self::Q4_0 => Dtype::Q8_0,
            other => other.dtype(),
        }
    }

    /// `general.file_type`: what most of the file is.
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

/// The format for rows of this width: the one that was wanted, or the next larger one whose blocks fit.
fn fitting(wanted: Dtype, width: usize) -> Dtype {
    let fits = |dtype: Dtype| width.is_multiple_of(dtype.block().0);
    [wanted, Dtype::Q8_0, Dtype::F16].into_iter().find(|&dtype| fits(dtype)).unwrap_or(Dtype::F16)
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the weights that were read.
    pub from_bytes: u64,
    /// Tensors and numbers in each format, largest share first.
    pub formats: Vec<(Dtype, usize, u64)>,
    /// Matrices that are in another format than was wanted for them, as their rows are no whole blocks.
    pub narrower: usize,
    /// Programs that read the tokenizer of GGUF files alone will not find one: Foreword has no words for it.
    pub without_tokenizer: bool,
}

/// A tensor to write.
struct Tensor {
    name: String,
    weights: Weights,
    dtype: Dtype,
    /// One dimension.
    vector: bool,
    /// Width of the heads whose rows are written by pairs.
    paired: Option<usize>,
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

    /// The row that comes as row `row` of the file.
    fn source(&self, row: usize) -> usize {
        match self.paired {
            None => row,
            Some(width) => {
                let (first, i) = (row - row % width, row % width);
                first + i / 2 + i % 2 * (width / 2)
            }
        }
    }
}

/// Everything that goes into a file, in its order.
struct Plan<'a> {
    spec: &'a Spec,
    names: &'a Names,
    by_pairs: bool,
    to: Quantisation,
    tensors: Vec<Tensor>,
    narrower: usize,
}

impl Plan<'_> {
    fn add(&mut self, name: &str, weights: Weights, vector: bool) {
        let paired =
            (self.by_pairs && names::is_query_or_key(name)).then_some(self.spec.attention.head_width);
        // Positions are few and are added to every row.
        let wanted = match name {
            _ if vector => Dtype::F32,
            "position_embd.weight" => Dtype::F32,
            "token_embd.weight" | "output.weight" => self.to.vocabulary(),
            _ => self.to.dtype(),
        };
        let dtype = fitting(wanted, weights.cols());
        self.narrower += usize::from(dtype != wanted);
        // Numbers of a vector are rows of their own where they are put in another order.
        let weights = match paired {
            Some(_) if vector => Weights::from_f32(&weights.to_f32(), 1),
            _ => weights,
        };
        self.tensors.push(Tensor { name: name.to_owned(), weights, dtype, vector, paired, offset: 0 });
    }

    /// Takes all tensors that the family has a name for.
    fn take(&mut self, tensors: &mut Tensors) -> Result<(), BackboneError> {
        let input_first = self.names.transposed;
        for (theirs, ours) in names::all(self.names, self.spec.layers) {
            if self.spec.head.tied && theirs.starts_with("output.") {
                continue;
            }
            match tensors.shape(&ours).map(<[usize]>::to_vec).as_deref() {
                None => {}
                Some(&[n]) => {
                    let mut values = tensors.vector(&ours, n)?;
                    if theirs.ends_with("norm.weight") {
                        values.iter_mut().for_each(|gain| *gain += self.names.gain_offset);
                    }
                    self.add(&theirs, Weights::from_f32(&values, n.max(1)), true);
                }
                Some(&[rows, cols]) => {
                    let matrix = tensors.matrix(&ours, rows, cols)?;
                    let is_table =
                        ours.starts_with(self.names.embeddings) || theirs.starts_with("position_embd");
                    let turned = input_first && !is_table && !theirs.starts_with("output.");
                    self.add(&theirs, if turned { matrix.transposed() } else { matrix }, false);
                }
                Some(other) => {
                    let detail = format!("tensor `{ours}` has the shape {other:?}");
                    return Err(BackboneError::Unwritable { detail });
                }
            }
        }
        Ok(())
    }

    /// Places the tensors one after another; the bytes of all of them.
    fn place(&mut self) -> u64 {
        let mut at = 0u64;
        for tensor in &mut self.tensors {
            tensor.offset = at;
            at = (at + tensor.n_bytes()).next_multiple_of(ALIGNMENT);
        }
        at
    }
}

/// Metadata as it is written.
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

/// What the architecture's keys say.
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
    let everywhere = spec.pattern.iter().find(|kind| kind.window.is_none()).or(spec.pattern.first());
    if let Some(rope) = everywhere.and_then(|kind| kind.rope.as_ref()) {
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
        // What else there is shows when the file's beginning is read again.
        RopeScaling::None | RopeScaling::Long { .. } => {}
    }
}

/// Reads the beginning of a file as its reader will, and sees that it says the same of the model: not every model that Foreword
/// knows can be told in GGUF's words.
fn check(header: &[u8], divisors: Option<&Tensor>, n_bytes: u64, spec: &Spec) -> Result<(), BackboneError> {
    let gguf = Gguf::parse_beginning("the file", header, n_bytes)?;
    // Its only tensor that is read for the configuration, where it will lie.
    let mut bytes = header.to_vec();
    if let Some(tensor) = divisors {
        bytes.resize(header.len() + tensor.offset as usize, 0);
        bytes.extend(tensor.weights.to_f32().iter().flat_map(|v| v.to_le_bytes()));
    }
    let config = super::config::translate(&gguf, &bytes).map_err(|error| {
        let detail = if let BackboneError::GgufMetadata { detail, .. } = &error { detail } else { "" };
        unwritable(format!("its format has no words for all of this one ({detail})"))
    })?;
    let config = config.to_string();
    let config = HfConfig::parse(config.as_bytes())?;
    let again = (families::find(&config)?.spec)(&config)?;
    let differences = differences(&again.canonical(), &spec.canonical());
    if differences.is_empty() {
        return Ok(());
    }
    Err(unwritable(format!("its format has no words for this one, which would come out with {differences}")))
}

/// The tokenizer, in GGUF's words where it has them, and whole. `false`: it has none.
fn describe_tokenizer(files: &ModelFiles, metadata: &mut Metadata) -> Result<bool, BackboneError> {
    let whole =
        std::str::from_utf8(&files.tokenizer).map_err(|_| unwritable("its tokenizer.json is no UTF-8"))?;
    let ends = end_tokens(&files.config, files.generation_config.as_deref())?;
    for (key, &token) in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"].iter().zip(&ends) {
        metadata.count(key, token as usize);
    }
    let spelled = tokenizer::from_json(&files.tokenizer);
    if let Some(spelled) = &spelled {
        metadata.text("tokenizer.ggml.model", spelled.model);
        metadata.text("tokenizer.ggml.pre", spelled.pre);
        metadata.texts("tokenizer.ggml.tokens", &spelled.tokens);
        metadata.array("tokenizer.ggml.token_type", 5, spelled.kinds.len());
        spelled.kinds.iter().for_each(|kind| metadata.bytes.extend(kind.to_le_bytes()));
        if let Some(scores) = &spelled.scores {
            metadata.array("tokenizer.ggml.scores", 6, scores.len());
            scores.iter().for_each(|score| metadata.bytes.extend(score.to_le_bytes()));
            metadata.flag("tokenizer.ggml.add_space_prefix", spelled.adds_space);
        }
        if let Some(merges) = &spelled.merges {
            metadata.texts("tokenizer.ggml.merges", merges);
        }
        for (key, token) in [("bos", spelled.bos), ("unknown", spelled.unknown)] {
            if let Some(token) = token {
                metadata.count(&format!("tokenizer.ggml.{key}_token_id"), token as usize);
            }
        }
        metadata.flag("tokenizer.ggml.add_bos_token", spelled.adds_bos);
        metadata.flag("tokenizer.ggml.add_eos_token", false);
    }
    metadata.text(tokenizer::WHOLE, whole);
    Ok(spelled.is_some())
}

/// The beginning of the file, up to the first tensor.
fn header(plan: &Plan<'_>, metadata: &Metadata) -> Vec<u8> {
    let mut bytes = super::MAGIC.to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend((plan.tensors.len() as u64).to_le_bytes());
    bytes.extend(metadata.n.to_le_bytes());
    bytes.extend(&metadata.bytes);
    for tensor in &plan.tensors {
        bytes.extend((tensor.name.len() as u64).to_le_bytes());
        bytes.extend(tensor.name.as_bytes());
        let (rows, cols) = (tensor.weights.rows() as u64, tensor.weights.cols() as u64);
        let shape = if tensor.vector { vec![rows * cols] } else { vec![cols, rows] };
        bytes.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
        let number =
            NUMBERS.iter().find(|(dtype, _)| *dtype == tensor.dtype).map_or(0, |(_, number)| *number);
        bytes.extend(number.to_le_bytes());
        bytes.extend(tensor.offset.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
    bytes
}

/// Writes a tensor, a piece of some rows at a time, and what fills it up to the next one's place.
fn write_tensor(tensor: &Tensor, out: &mut (impl Write + ?Sized)) -> Result<(), BackboneError> {
    let (rows, cols) = (tensor.weights.rows(), tensor.weights.cols());
    let per_piece = (PIECE / cols.max(1)).max(1);
    let mut values = vec![0.0f32; per_piece.min(rows) * cols];
    for start in (0..rows).step_by(per_piece) {
        let n = per_piece.min(rows - start);
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
    let gap = tensor.n_bytes().next_multiple_of(ALIGNMENT) - tensor.n_bytes();
    out.write_all(&[0; ALIGNMENT as usize][..gap as usize]).map_err(BackboneError::Write)
}

impl ModelFiles {
    /// Writes the model as a GGUF file. `progress` is told the share of its numbers that
    /// are written, and says whether to go on.
    ///
    /// # Errors
    /// If the model can't be read, GGUF has no words for it, a number is not finite, `out` can't be written, or `progress` says
    /// no.
    pub fn write_gguf(
        &self,
        to: Quantisation,
        out: &mut (impl Write + ?Sized),
        mut progress: impl FnMut(f64) -> bool,
    ) -> Result<Written, BackboneError> {
        let files = self;
        let config = HfConfig::parse(&files.config)?;
        let family = families::find(&config)?;
        let spec = (family.spec)(&config)?;
        config.finish()?;
        let architecture = Architecture::of_family(family).ok_or_else(|| {
            unwritable(format!("models of the family {} are not written yet", family.model_type))
        })?;
        let names = (family.names)(&spec);
        let mut tensors = Tensors::read(&files.weights, &names)?;
        let names = &tensors.as_stored(&names);
        let mut plan = Plan {
            spec: &spec,
            names,
            by_pairs: architecture.by_pairs,
            to,
            tensors: Vec::new(),
            narrower: 0,
        };
        plan.take(&mut tensors)?;
        let rope = spec.pattern.first().and_then(|kind| kind.rope.as_ref());
        if let Some(rope) = rope.filter(|rope| matches!(rope.scaling, RopeScaling::Llama3 { .. })) {
            let divisors = divisors(rope);
            let name = names::FREQUENCIES[0];
            // First, so that it lies near the beginning.
            plan.add(name, Weights::from_f32(&divisors, divisors.len().max(1)), true);
            plan.tensors.rotate_right(1);
        }
        let from_bytes = tensors.n_bytes();
        let heads: Vec<String> = names.heads.iter().map(|head| format!("{head}.weight")).collect();
        let mut without_use = names.no_weights.to_vec();
        if spec.head.tied {
            without_use.extend(heads.iter().map(String::as_str));
        }
        tensors.finish(family.model_type, &without_use)?;
        let data_bytes = plan.place();

        let mut metadata = Metadata::default();
        metadata.text("general.architecture", architecture.name);
        metadata.text("general.name", &files.name);
        metadata.count("general.file_type", to.file_type() as usize);
        metadata.count("general.quantization_version", 2);
        metadata.count("general.alignment", ALIGNMENT as usize);
        describe(&spec, architecture.name, &mut metadata);
        let has_tokenizer = describe_tokenizer(files, &mut metadata)?;
        let header = header(&plan, &metadata);
        let frequencies = plan.tensors.first().filter(|tensor| tensor.name == names::FREQUENCIES[0]);
        check(&header, frequencies, header.len() as u64 + data_bytes, &spec)?;
        out.write_all(&header).map_err(BackboneError::Write)?;
        let total: u64 = plan.tensors.iter().map(Tensor::n_numbers).sum();
        let (mut done, mut formats) = (0u64, Vec::<(Dtype, usize, u64)>::new());
        for tensor in &plan.tensors {
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
        Ok(Written {
            bytes: header.len() as u64 + data_bytes,
            from_bytes,
            formats,
            narrower: plan.narrower,
            without_tokenizer: !has_tokenizer,
        })
    }
}
