//! The real program, run as people and scripts run it: one module per subject.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests, and their helpers that are no tests themselves"
)]

mod scene;
mod schema;

mod calibration;
mod compare;
mod generate;
mod help;
mod inspect;
mod similar;
mod stories;

mod candidates;
mod chat;
mod data;
mod docs;
mod exchange;
mod explain;
mod lint;

mod peft;

mod full_disk;
mod interrupted;
mod resumed;
mod wrong;
