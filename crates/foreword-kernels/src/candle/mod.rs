//! GPUs through candle-core (CUDA, Metal): tensors of rows, and few large operations on them.
//!
//! candle provides storage, products and elementwise operations. Its automatic differentiation is not used: every gradient is
//! written out, as in [`Reference`](crate::Reference). Frozen matrices stay on the device in their file's format and are
//! widened to single precision in pieces before a product, so results are those of the other backends up to rounding. A
//! GPU chooses its kernel by the number of rows, so a row's bits may depend on the other rows of the call.

mod attention;
mod head;
mod memo;
mod plan;
mod products;
mod rows;
mod rowwise;

use candle_core::{DType, Device, Result, Tensor};

use crate::backend::{
    Activation, Attended, Attention, AttentionGradient, Backend, Direction, HeadOf, Norm, RotaryAngles, Token,
};
use crate::weights::Weights;
use memo::Memo;
use plan::{Plan, PlanKey};
pub use products::DeviceMatrix;
pub use rows::DeviceRows;
use rowwise::DeviceAngles;

/// Limit on the numbers of a temporary tensor: 256 MiB.
const SCRATCH_LIMIT: usize = 1 << 26;
/// Cached plans and angles: those of a trunk and of a micro-batch, of all rows and of the query rows.
const N_CACHED: usize = 8;

/// A device that can't be used, or an operation that failed on it.
///
/// The operations of [`Backend`] return no errors. If one fails (the device's memory is full, the device is lost), it panics
/// with this value as its payload.
#[derive(Clone, Debug)]
pub struct DeviceError {
    device: String,
    message: String,
}

impl DeviceError {
    fn new(device: &str, error: &candle_core::Error) -> Self {
        // The first line is the message; a backtrace follows.
        let message = error.to_string().lines().next().unwrap_or_default().trim().to_owned();
        Self { device: device.to_owned(), message }
    }

    /// Whether the device ran out of memory.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        let message = self.message.to_lowercase();
        ["out_of_memory", "out of memory", "failed to allocate"].iter().any(|words| message.contains(words))
    }
}

impl std::fmt::Display for DeviceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { device, message } = self;
        if self.is_out_of_memory() {
            write!(f, "the memory of the device {device} is full: {message}")
        } else {
            write!(f, "the device {device} failed: {message}")
        }
    }
}

impl std::error::Error for DeviceError {}

/// A device of candle: rows in single precision, frozen matrices in their file's format.
///
/// # Panics
/// Every operation, with a [`DeviceError`] as the payload, if the device fails.
#[derive(Debug)]
pub struct Candle {
    device: Device,
    name: String,
    scratch_limit: usize,
    plans: Memo<PlanKey, Plan>,
    angles: Memo<RotaryAngles, DeviceAngles>,
}

impl Candle {
    /// candle on the processor, for the tests. [`Cpu`](crate::Cpu) is the fast backend.
    #[must_use]
    pub fn cpu() -> Self {
        Self::new(Device::Cpu, "candle's cpu".to_owned())
    }

    /// An NVIDIA GPU by its number.
    ///
    /// # Errors
    /// If this build has no CUDA, or no such device answers.
    pub fn cuda(ordinal: usize) -> std::result::Result<Self, DeviceError> {
        Self::opened(Device::new_cuda(ordinal), format!("cuda:{ordinal}"))
    }

    /// The GPU of an Apple computer.
    ///
    /// # Errors
    /// If this build has no Metal, or no device answers.
    pub fn metal() -> std::result::Result<Self, DeviceError> {
        Self::opened(Device::new_metal(0), "metal".to_owned())
    }

    /// The same with another limit on temporary tensors, in numbers. A single row may take more.
    #[must_use]
    pub fn with_scratch_limit(self, scratch_limit: usize) -> Self {
        Self { scratch_limit, ..self }
    }

    /// Its name: `cuda:0`, `metal`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Free bytes of the device's memory; `None` if unknown.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = &self.device {
            return device.cuda_stream().context().mem_get_info().ok().map(|(free, _)| free as u64);
        }
        None
    }

    fn opened(device: Result<Device>, name: String) -> std::result::Result<Self, DeviceError> {
        match device {
            Ok(device) => Ok(Self::new(device, name)),
            Err(error) => Err(DeviceError::new(&name, &error)),
        }
    }

    fn new(device: Device, name: String) -> Self {
        Self {
            device,
            name,
            scratch_limit: SCRATCH_LIMIT,
            plans: Memo::new(N_CACHED),
            angles: Memo::new(N_CACHED),
        }
    }

    /// The result; panics with a [`DeviceError`] if there is none.
    fn expect_ok<T>(&self, result: Result<T>) -> T {
        result.unwrap_or_else(|error| std::panic::panic_any(DeviceError::new(&self.name, &error)))
    }

    /// Indices on the device, `[n]`.
    fn indices(&self, indices: impl IntoIterator<Item = usize>) -> Result<Tensor> {
        let indices: Vec<u32> = indices.into_iter().map(|i| i as u32).collect();
        let n = indices.len();
        Tensor::from_vec(indices, n, &self.device)
    }
}

impl Backend for Candle {
    type Element = f32;
    type Rows = DeviceRows;
    type Matrix = DeviceMatrix;
    type Vector = Tensor;

    fn matrix(&self, blocks: Vec<Weights>) -> DeviceMatrix {
        self.expect_ok(DeviceMatrix::new(&blocks, &self.device))
    }
    fn vector(&self, values: &[f32]) -> Tensor {
        self.expect_ok(Tensor::from_slice(values, (1, values.len()), &self.device))
    }
    fn rows(&self, values: Vec<f32>, width: usize) -> DeviceRows {
        self.expect_ok(DeviceRows::from_values(values, width, &self.device))
    }
    fn zeros(&self, n_rows: usize, width: usize) -> DeviceRows {
        let zeros =
            (n_rows > 0).then(|| self.expect_ok(Tensor::zeros((n_rows, width), DType::F32, &self.device)));
        DeviceRows::new(zeros, width)
    }
    fn values(&self, rows: &DeviceRows) -> Vec<f32> {
        self.expect_ok(rows.values())
    }
    fn embed(&self, table: &DeviceMatrix, tokens: &[Token]) -> DeviceRows {
        self.expect_ok(self.embedded(table, tokens))
    }
    fn select(&self, x: &DeviceRows, indices: &[usize]) -> DeviceRows {
        self.expect_ok(self.selected(x, indices))
    }
    fn assign(&self, into: &mut DeviceRows, indices: &[usize], source: &DeviceRows) {
        self.expect_ok(self.assigned(into, indices, source));
    }
    fn scatter_add(&self, into: &mut DeviceRows, indices: &[usize], source: &DeviceRows) {
        self.expect_ok(self.scattered(into, indices, source));
    }
    fn add(&self, into: &mut DeviceRows, x: &DeviceRows) {
        self.expect_ok(into.add(x.tensor()));
    }
    fn scale(&self, x: &mut DeviceRows, factor: f32) {
        self.expect_ok(rowwise::scale(x, factor));
    }
    fn linear(&self, x: &DeviceRows, weight: &DeviceMatrix, bias: Option<&Tensor>) -> DeviceRows {
        self.expect_ok(self.product(x, weight, bias))
    }
    fn linear_gradient(&self, dy: &DeviceRows, weight: &DeviceMatrix, dx: Option<DeviceRows>) -> DeviceRows {
        self.expect_ok(self.product_gradient(dy, weight, dx))
    }
    fn norm(&self, x: &DeviceRows, norm: &Norm<Tensor>) -> DeviceRows {
        self.expect_ok(rowwise::norm(x, norm))
    }
    fn norm_gradient(&self, x: &DeviceRows, norm: &Norm<Tensor>, dy: &DeviceRows, dx: &mut DeviceRows) {
        self.expect_ok(rowwise::norm_gradient(x, norm, dy, dx));
    }
    fn norm_heads(
        &self,
        x: &DeviceRows,
        n_heads: usize,
        head_width: usize,
        norm: &Norm<Tensor>,
    ) -> DeviceRows {
        self.expect_ok(rowwise::norm_heads(x, n_heads, head_width, norm))
    }
    fn norm_heads_gradient(
        &self,
        x: &DeviceRows,
        n_heads: usize,
        head_width: usize,
        norm: &Norm<Tensor>,
        dy: DeviceRows,
    ) -> DeviceRows {
        self.expect_ok(rowwise::norm_heads_gradient(x, n_heads, head_width, norm, &dy))
    }
    fn rotate(
        &self,
        x: &mut DeviceRows,
        n_heads: usize,
        head_width: usize,
        angles: &RotaryAngles,
        direction: Direction,
    ) {
        let angles = self.expect_ok(self.angles.get(angles, || DeviceAngles::new(angles, &self.device)));
        self.expect_ok(rowwise::rotate(x, n_heads, head_width, &angles, direction));
    }
    fn attend(&self, attention: &Attention<'_, DeviceRows>) -> Attended<DeviceRows> {
        self.expect_ok(self.attended(attention))
    }
    fn attend_gradient(
        &self,
        attention: &Attention<'_, DeviceRows>,
        attended: &Attended<DeviceRows>,
        d_output: &DeviceRows,
        gradient: AttentionGradient<'_, DeviceRows>,
    ) {
        self.expect_ok(self.attended_gradient(attention, attended, d_output, gradient));
    }
    fn activate(&self, x: &DeviceRows, activation: Activation) -> DeviceRows {
        self.expect_ok(rowwise::activate(x, activation))
    }
    fn activate_gradient(&self, x: &DeviceRows, activation: Activation, dy: &DeviceRows) -> DeviceRows {
        self.expect_ok(rowwise::activate_gradient(x, activation, dy))
    }
    fn logits_at(&self, x: &DeviceRows, head: HeadOf<'_, Self>, pairs: &[(usize, Token)]) -> Vec<f32> {
        self.expect_ok(self.logits_of(x, head, pairs))
    }
    fn logits_at_gradient(
        &self,
        head: HeadOf<'_, Self>,
        pairs: &[(usize, Token)],
        logits: &[f32],
        d: &[f32],
        dx: &mut DeviceRows,
    ) {
        self.expect_ok(self.logits_at_back(head, pairs, (logits, d), dx));
    }
    fn log_sum_exp(&self, x: &DeviceRows, head: HeadOf<'_, Self>) -> Vec<f32> {
        self.expect_ok(self.log_sum_exps(x, head))
    }
    fn log_sum_exp_gradient(
        &self,
        x: &DeviceRows,
        head: HeadOf<'_, Self>,
        log_sums: &[f32],
        d: &[f32],
        dx: &mut DeviceRows,
    ) {
        self.expect_ok(self.log_sum_exp_back(x, head, (log_sums, d), dx));
    }
}
