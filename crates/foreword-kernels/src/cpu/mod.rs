//! The fast implementation: threads over tiles, SIMD chosen at run time, sums in an order that no thread count changes.
//!
//! Blocks of zeros are written by all threads: a serial pass over a block takes longer than its arithmetic. The program's own
//! thread can be one of the pool ([`Cpu::on_this_thread`]), so that no operation is handed over.

mod attention;
mod code_path;
mod gemm;
mod head;
mod lanes;
mod rowwise;

use std::mem::MaybeUninit;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::backend::{
    Activation, Attended, Attention, AttentionGradient, Backend, Direction, HeadOf, Norm, RotaryAngles, Token,
};
use crate::dtype::Dtype;
use crate::rows::{RowBlock, Rows};
use crate::weights::Weights;
pub use code_path::{CODE_PATH_VARIABLE, CodePath, CodePathError, InstructionSet};
use gemm::FrozenMatrix;

/// The dtype in which products with frozen matrices are computed. Sums are in single precision either way, and so is
/// everything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ComputeDtype {
    /// bf16 if the matrix is stored so, which loses nothing, and the processor multiplies bf16 faster; otherwise single
    /// precision.
    Auto,
    /// Single precision.
    #[default]
    F32,
    /// Both operands rounded to bf16. Slower if the processor has no instruction for it.
    Bf16,
}

impl ComputeDtype {
    /// Every choice.
    pub const ALL: &[Self] = &[Self::Auto, Self::F32, Self::Bf16];

    /// Its name: `auto`, `f32`, `bf16`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// A name that no [`ComputeDtype`] has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownComputeDtype(String);

impl std::fmt::Display for UnknownComputeDtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known: Vec<_> = ComputeDtype::ALL.iter().map(|dtype| dtype.as_str()).collect();
        write!(f, "unknown compute dtype {:?}; known are {}", self.0, known.join(", "))
    }
}

impl std::error::Error for UnknownComputeDtype {}

impl std::str::FromStr for ComputeDtype {
    type Err = UnknownComputeDtype;

    fn from_str(name: &str) -> Result<Self, UnknownComputeDtype> {
        let found = Self::ALL.iter().copied().find(|dtype| dtype.as_str() == name);
        found.ok_or_else(|| UnknownComputeDtype(name.to_owned()))
    }
}

/// Why a [`Cpu`] can't be made.
#[derive(Debug)]
pub enum CpuError {
    /// `FOREWORD_CODE_PATH` names a code path that cannot be used.
    CodePath(CodePathError),
    /// The threads cannot be started.
    Threads(ThreadPoolBuildError),
}

impl std::fmt::Display for CpuError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CodePath(_) => write!(f, "{CODE_PATH_VARIABLE} cannot be followed"),
            Self::Threads(_) => f.write_str("cannot start threads"),
        }
    }
}

impl std::error::Error for CpuError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::CodePath(error) => Some(error),
            Self::Threads(error) => Some(error),
        }
    }
}

impl From<CodePathError> for CpuError {
    fn from(error: CodePathError) -> Self {
        Self::CodePath(error)
    }
}

impl From<ThreadPoolBuildError> for CpuError {
    fn from(error: ThreadPoolBuildError) -> Self {
        Self::Threads(error)
    }
}

/// The processor. It reads weights in their file's format, tile by tile.
#[derive(Debug)]
pub struct Cpu {
    pool: ThreadPool,
    path: CodePath,
    compute_dtype: ComputeDtype,
}

fn pool(n_threads: usize) -> ThreadPoolBuilder {
    ThreadPoolBuilder::new().num_threads(n_threads).thread_name(|i| format!("kernel {i}"))
}

impl Cpu {
    /// A fixed pool of `n_threads` threads (0: one per core), and the code path of [`CodePath::from_env`].
    ///
    /// # Errors
    /// If the environment names a code path that cannot be used, or the threads can't be started.
    pub fn new(n_threads: usize) -> Result<Self, CpuError> {
        Ok(Self::with_path(n_threads, CodePath::from_env()?)?)
    }

    /// [`Cpu::new`] with the calling thread as one of the pool. It computes instead of waiting for the others, so that no
    /// operation is handed over, which saves 3 to 5 % of a step. Called from another thread, operations run on the pool's other
    /// threads: **with `n_threads` 1 there are none, and a call never returns**. If the calling thread belongs to a pool
    /// already, this is [`Cpu::new`].
    ///
    /// # Errors
    /// As [`Cpu::new`].
    pub fn on_this_thread(n_threads: usize) -> Result<Self, CpuError> {
        if rayon::current_thread_index().is_some() {
            return Self::new(n_threads);
        }
        let path = CodePath::from_env()?;
        Ok(Self::with_pool(pool(n_threads).use_current_thread().build()?, path))
    }

    /// [`Cpu::new`] with this code path, whatever the environment says: for comparisons.
    ///
    /// # Errors
    /// If the threads can't be started.
    pub fn with_path(n_threads: usize, path: CodePath) -> Result<Self, ThreadPoolBuildError> {
        Ok(Self::with_pool(pool(n_threads).build()?, path))
    }

    fn with_pool(pool: ThreadPool, path: CodePath) -> Self {
        Self { pool, path, compute_dtype: ComputeDtype::default() }
    }

    /// The same with another compute dtype. Matrices made before keep theirs.
    #[must_use]
    pub fn with_compute_dtype(self, compute_dtype: ComputeDtype) -> Self {
        Self { compute_dtype, ..self }
    }

    /// Number of threads.
    #[must_use]
    pub fn n_threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// The code path in use.
    #[must_use]
    pub fn path(&self) -> CodePath {
        self.path
    }
}

/// Numbers of a task that are worth a thread's while.
const TASK_SIZE: usize = 1 << 15;

/// `[n_rows, width]` of zeros, written by all threads of the current pool.
#[allow(unsafe_code)]
fn zeros(n_rows: usize, width: usize) -> Rows<f32> {
    let n = n_rows * width;
    let mut values = Vec::with_capacity(n);
    values.spare_capacity_mut()[..n]
        .par_chunks_mut(TASK_SIZE)
        .for_each(|part| part.fill(MaybeUninit::new(0.0)));
    // SAFETY: all of them were written.
    unsafe { values.set_len(n) };
    Rows::new(values, width)
}

impl Backend for Cpu {
    type Element = f32;
    type Rows = Rows<f32>;
    type Matrix = FrozenMatrix;
    type Vector = Vec<f32>;

    fn matrix(&self, blocks: Vec<Weights>) -> FrozenMatrix {
        FrozenMatrix::new(self.path, blocks, |stored| self.product_dtype(stored))
    }
    fn product_dtype(&self, stored: Dtype) -> Dtype {
        match self.compute_dtype {
            ComputeDtype::Auto if stored == Dtype::Bf16 && self.path.fast_bf16().is_some() => Dtype::Bf16,
            ComputeDtype::Auto | ComputeDtype::F32 => Dtype::F32,
            ComputeDtype::Bf16 => Dtype::Bf16,
        }
    }
    fn vector(&self, values: &[f32]) -> Vec<f32> {
        values.to_vec()
    }
    fn rows(&self, values: Vec<f32>, width: usize) -> Rows<f32> {
        Rows::new(values, width)
    }
    fn zeros(&self, n_rows: usize, width: usize) -> Rows<f32> {
        self.pool.install(|| zeros(n_rows, width))
    }
    fn values(&self, rows: &Rows<f32>) -> Vec<f32> {
        rows.values().to_vec()
    }
    fn embed(&self, table: &FrozenMatrix, tokens: &[Token]) -> Rows<f32> {
        let mut rows = Rows::zeros(tokens.len(), table.cols());
        for (i, &token) in tokens.iter().enumerate() {
            table.read_row(token as usize, rows.row_mut(i));
        }
        rows
    }
    fn select(&self, x: &Rows<f32>, indices: &[usize]) -> Rows<f32> {
        x.select(indices)
    }
    fn assign(&self, into: &mut Rows<f32>, indices: &[usize], source: &Rows<f32>) {
        into.assign(indices, source);
    }
    fn scatter_add(&self, into: &mut Rows<f32>, indices: &[usize], source: &Rows<f32>) {
        into.scatter_add(indices, source);
    }
    fn add(&self, into: &mut Rows<f32>, x: &Rows<f32>) {
        assert_eq!((into.n_rows(), into.width()), (x.n_rows(), x.width()), "add: shapes");
        self.pool.install(|| {
            let pairs = into.values_mut().par_chunks_mut(TASK_SIZE).zip(x.values().par_chunks(TASK_SIZE));
            pairs.for_each(|(into, x)| into.iter_mut().zip(x).for_each(|(into, x)| *into += x));
        });
    }
    fn scale(&self, x: &mut Rows<f32>, factor: f32) {
        x.values_mut().iter_mut().for_each(|value| *value *= factor);
    }
    fn linear(&self, x: &Rows<f32>, weight: &FrozenMatrix, bias: Option<&Vec<f32>>) -> Rows<f32> {
        self.pool.install(|| gemm::linear(self.path, x, weight, bias.map(Vec::as_slice)))
    }
    fn linear_gradient(&self, dy: &Rows<f32>, weight: &FrozenMatrix, dx: Option<Rows<f32>>) -> Rows<f32> {
        self.pool.install(|| gemm::linear_gradient(self.path, dy, weight, dx))
    }
    fn norm(&self, x: &Rows<f32>, norm: &Norm<Vec<f32>>) -> Rows<f32> {
        self.pool.install(|| rowwise::norm(self.path, x, norm))
    }
    fn norm_gradient(&self, x: &Rows<f32>, norm: &Norm<Vec<f32>>, dy: &Rows<f32>, dx: &mut Rows<f32>) {
        self.pool.install(|| rowwise::norm_gradient(self.path, x, norm, dy, dx));
    }
    fn norm_heads(&self, x: &Rows<f32>, n_heads: usize, width: usize, norm: &Norm<Vec<f32>>) -> Rows<f32> {
        self.pool.install(|| rowwise::norm_heads(self.path, x, n_heads * width, width, norm))
    }
    fn norm_heads_gradient(
        &self,
        x: &Rows<f32>,
        n_heads: usize,
        width: usize,
        norm: &Norm<Vec<f32>>,
        dy: Rows<f32>,
    ) -> Rows<f32> {
        self.pool.install(|| rowwise::norm_heads_gradient(self.path, x, n_heads * width, width, norm, dy))
    }
    fn rotate(
        &self,
        x: &mut Rows<f32>,
        n_heads: usize,
        width: usize,
        angles: &RotaryAngles,
        direction: Direction,
    ) {
        self.pool.install(|| rowwise::rotate(self.path, x, n_heads * width, width, angles, direction));
    }
    fn attend(&self, attention: &Attention<'_, Rows<f32>>) -> Attended<Rows<f32>> {
        self.pool.install(|| attention::attend(self.path, attention))
    }
    fn attend_gradient(
        &self,
        attention: &Attention<'_, Rows<f32>>,
        attended: &Attended<Rows<f32>>,
        d_output: &Rows<f32>,
        gradient: AttentionGradient<'_, Rows<f32>>,
    ) {
        self.pool.install(|| attention::attend_gradient(self.path, attention, attended, d_output, gradient));
    }
    fn activate(&self, x: &Rows<f32>, activation: Activation) -> Rows<f32> {
        self.pool.install(|| rowwise::activate(self.path, x, activation))
    }
    fn activate_gradient(&self, x: &Rows<f32>, activation: Activation, dy: &Rows<f32>) -> Rows<f32> {
        self.pool.install(|| rowwise::activate_gradient(self.path, x, activation, dy))
    }
    fn logits_at(&self, x: &Rows<f32>, head: HeadOf<'_, Self>, pairs: &[(usize, Token)]) -> Vec<f32> {
        head::logits_at(x, head, pairs)
    }
    fn logits_at_gradient(
        &self,
        head: HeadOf<'_, Self>,
        pairs: &[(usize, Token)],
        logits: &[f32],
        d: &[f32],
        dx: &mut Rows<f32>,
    ) {
        head::logits_at_gradient(head, pairs, logits, d, dx);
    }
    fn log_sum_exp(&self, x: &Rows<f32>, head: HeadOf<'_, Self>) -> Vec<f32> {
        self.pool.install(|| head::log_sum_exp(self.path, x, head))
    }
    fn log_sum_exp_gradient(
        &self,
        x: &Rows<f32>,
        head: HeadOf<'_, Self>,
        log_sums: &[f32],
        d: &[f32],
        dx: &mut Rows<f32>,
    ) {
        self.pool.install(|| head::log_sum_exp_gradient(self.path, x, head, log_sums, d, dx));
    }
}
