//! The library seen from outside, and the rules of the repository: one module per subject.

#![allow(clippy::unwrap_used, reason = "tests, and their helpers that are no tests themselves")]

mod device;
mod display;
mod error;
mod example;
mod notice;
mod output;
mod tidy;
mod verdict;
