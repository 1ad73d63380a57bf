//! Row operations on frozen weights, each with its input gradient, behind one small [`Backend`] trait.
//!
//! Everything that a frozen transformer needs for its forward pass and for the backward pass to its *inputs*: no operation
//! can form the gradient of a weight. Activations are blocks of rows `[N, W]`; which row attends to which is a [`Forest`] of
//! segments. The crate knows nothing of models, prompts or labels.
//!
//! | implementation | element | for |
//! |---|---|---|
//! | [`Reference`] | `f32` or `f64` | plain loops; the oracle of every test |
//! | [`Cpu`] | `f32` | SIMD chosen at run time, threads over tiles |
//! | `Candle` | `f32` | GPUs, behind the features `cuda` and `metal` |

mod backend;
mod blocks;
mod dtype;
mod forest;
mod functions;
mod rows;
mod weights;

#[cfg(feature = "candle")]
mod any_backend;
#[cfg(feature = "candle")]
mod candle;
mod cpu;
mod reference;

/// Memory shared between weights: a mapped file, bytes compiled into the program, or an owned copy.
pub use bytes::Bytes;

#[cfg(feature = "candle")]
pub use any_backend::{AnyBackend, AnyRows, HostOrDevice};
pub use backend::{
    Activation, Attended, Attention, AttentionGradient, AttentionShape, Backend, Direction, Function, Head,
    HeadOf, Norm, NormKind, Pairing, RotaryAngles, Token,
};
#[cfg(feature = "candle")]
pub use candle::{Candle, DeviceError, DeviceMatrix, DeviceRows};
pub use cpu::{
    CODE_PATH_VARIABLE, CodePath, CodePathError, ComputeDtype, Cpu, CpuError, InstructionSet,
    UnknownComputeDtype,
};
pub use dtype::Dtype;
pub use forest::{Forest, Parent, QueryBlock, Segment, Source, Span};
pub use reference::Reference;
pub use rows::{Element, RowBlock, Rows};
pub use weights::{Weights, WeightsError};
