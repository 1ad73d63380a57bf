//! Insight into prompts, and baselines without training: in-context examples and instructions.

pub mod demonstrations;
pub mod explain;
pub mod inspect;
pub mod similarity;
