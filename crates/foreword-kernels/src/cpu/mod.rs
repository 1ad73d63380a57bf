//! The fast implementation: threads over tiles, SIMD chosen at run time, sums in an order that no thread count changes.

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
use crate::rows::{RowBlock, Rows};
use crate::weights::{Dtype, Weights};
pub use code_path::{CODE_PATH_VARIABLE, CodePath, CodePathError, InstructionSet};
use gemm::FrozenMatrix;

/// In what products with frozen matrices are computed. Sums are in single precision either way, and so is all else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// In bf16 where the matrix is stored so, which then loses nothing, and the processor multiplies bf16 faster; otherwise
    /// in single precision.
    Auto,
    /// In single precision.
    #[default]
    F32,
    /// Both sides rounded to bf16, by slower means where the processor has no instruction for it.
    Bf16,
}

impl Products {
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

/// A name that no [`Products`] has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownProducts(String);

impl std::fmt::Display for UnknownProducts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known: Vec<_> = Products::ALL.iter().map(|products| products.as_str()).collect();
        write!(f, "products can't be computed in {:?}: known are {}", self.0, known.join(", "))
    }
}

impl std::error::Error for UnknownProducts {}

impl std::str::FromStr for Products {
    type Err = UnknownProducts;

    fn from_str(name: &str) -> Result<Self, UnknownProducts> {
        let found = Self::ALL.iter().copied().find(|products| products.as_str() == name);
        found.ok_or_else(|| UnknownProducts(name.to_owned()))
    }
}

/// Why there is no [`Cpu`].
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

/// The processor: weights read in their file's format, tile by tile.
#[derive(Debug)]
pub struct Cpu {
    pool: ThreadPool,
    path: CodePath,
    products: Products,
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

    /// The same with the calling thread as one of the pool's. It computes instead of waiting for the others, so that no operation is
    /// handed over first: 3 to 5 % of a step. From another thread, operations are left to the others of the pool: **with
    /// `n_threads` 1 there are none, and a call never returns**. A thread that is one of a pool already stays there, and this is
    /// [`Cpu::new`].
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

    /// The same with a given code path, whatever the environment says: for comparisons.
    ///
    /// # Errors
    /// If the threads can't be started.
    pub fn with_path(n_threads: usize, path: CodePath) -> Result<Self, ThreadPoolBuildError> {
        Ok(Self::with_pool(pool(n_threads).build()?, path))
    }

    fn with_pool(pool: ThreadPool, path: CodePath) -> Self {
        Self { pool, path, products: Products::default() }
    }

    /// The same with products computed so; matrices taken over before keep their way.
    #[must_use]
    pub fn with_products(self, products: Products) -> Self {
        Self { products, ..self }
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

/// Numbers that are worth a thread's turn.
const SHARE: usize = 1 << 15;

/// `[n_rows, width]` of zeros, written by all threads of the current pool.
#[allow(unsafe_code)]
fn zeros(n_rows: usize, width: usize) -> Rows<f32> {
    let n = n_rows * width;
    let mut values = Vec::with_capacity(n);
    values.spare_capacity_mut()[..n]
        .par_chunks_mut(SHARE)
        .for_each(|share| share.fill(MaybeUninit::new(0.0)));
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
        match self.products {
            Products::Auto if stored == Dtype::Bf16 && self.path.fast_bf16().is_some() => Dtype::Bf16,
            Products::Auto | Products::F32 => Dtype::F32,
            Products::Bf16 => Dtype::Bf16,
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
            let pairs = into.values_mut().par_chunks_mut(SHARE).zip(x.values().par_chunks(SHARE));
            pairs.for_each(|(into, x)| into.iter_mut().zip(x).for_each(|(into, x)| *into += x));
        });
    }
    fn scale(&self, x: &mut Rows<f32>, factor: f32) {
        x.values_mut().iter_mut().for_each(|value| *value *= factor);
    }
    fn linear(&self, x: &Rows<f32>, weight: &FrozenMatrix, bias: Option<&Vec<f32>>) -> Rows<f32> {
        self.pool.install(|| gemm::outputs(self.path, x, weight, bias.map(Vec::as_slice)))
    }
    fn linear_gradient(&self, dy: &Rows<f32>, weight: &FrozenMatrix, dx: Option<Rows<f32>>) -> Rows<f32> {
        self.pool.install(|| gemm::input_gradient(self.path, dy, weight, dx))
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
