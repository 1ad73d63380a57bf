//! The frozen models: parity with transformers, the laws of the forest, and what bad files say.

mod bad_models;
mod forest;
mod golden;
mod parity;
