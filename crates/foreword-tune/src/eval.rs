//! Evaluation: from log-likelihoods to predictions, metrics, and the calibration of label probabilities.

pub mod calibration;
pub mod likelihood;
pub mod metrics;
