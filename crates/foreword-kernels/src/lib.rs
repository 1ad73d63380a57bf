//! Row operations on frozen weights, each with its input gradient, behind one small [`Backend`] trait.
//!
//! Everything a frozen transformer needs to be run forwards and backwards with respect to its *inputs*: no operation
//! here can form the gradient of a weight. Activations are blocks of rows `[N, W]`; which row attends to which is a
//! [`Forest`] of segments. The crate knows nothing of models, prompts or labels.
//!
//! | implementation | element | for |
//! |---|---|---|
//! | [`Reference`] | `f32` or `f64` | plain loops; the oracle of every test |
//! | [`Cpu`] | `f32` | SIMD chosen at run time, threads over tiles |
//! | `Candle` | `f32` | GPUs, behind the features `cuda` and `metal` |

mod backend;
mod blocks;
mod forest;
mod functions;
mod rows;
mod weights;

#[cfg(feature = "candle")]
mod candle;
mod cpu;
#[cfg(feature = "candle")]
mod machine;
mod reference;

/// Memory shared between weights: a mapped file, bytes compiled into the program, or an owned copy.
pub use bytes::Bytes;

pub use backend::{
    Activation, Attended, Attention, AttentionGradient, AttentionShape, Backend, Direction, Function, Head,
    HeadOf, Norm, NormKind, Pairing, RotaryAngles, Token,
};
#[cfg(feature = "candle")]
pub use candle::{Candle, DeviceError, DeviceMatrix, DeviceRows};
pub use cpu::{
    CODE_PATH_VARIABLE, CodePath, CodePathError, Cpu, CpuError, InstructionSet, Products, UnknownProducts,
};
pub use forest::{Forest, Parent, QueryBlock, Segment, Source, Span};
#[cfg(feature = "candle")]
pub use machine::{Kept, Machine, MachineRows};
pub use reference::Reference;
pub use rows::{Element, RowBlock, Rows};
pub use weights::{Dtype, Weights, WeightsError};
