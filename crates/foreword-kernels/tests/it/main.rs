//! The laws of the kernels: gradients are derivatives, fast equals reference, bits do not depend on company.

mod bits;
mod fast;
mod gradients;
mod support;
