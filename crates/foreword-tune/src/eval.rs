//! How good a prompt is: metrics, and the calibration of labels' probabilities.

pub mod calibration;
pub mod metrics;
