//! What a prompt does and what is in it, and what costs no training: demonstrations and instructions before a template.

pub mod demonstrations;
pub mod explain;
pub mod inspect;
pub mod similarity;
