//! One file per verb.

pub(crate) mod classify;
pub(crate) mod compare;
pub(crate) mod compile;
pub(crate) mod completions;
pub(crate) mod eval;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod man;
pub(crate) mod models;
pub(crate) mod quantise;
pub(crate) mod quickstart;
pub(crate) mod similar;
pub(crate) mod train;
