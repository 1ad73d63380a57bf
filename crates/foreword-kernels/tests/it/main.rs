//! The laws of the kernels: gradients are derivatives, fast equals reference, bits do not depend on company.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "tests, and their helpers that are no tests themselves"
)]

mod bits;
mod blocks;
mod fast;
mod gradients;
mod support;
