//! Evaluation: metrics, and the calibration of label probabilities.

pub mod calibration;
pub mod metrics;
