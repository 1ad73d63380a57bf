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
mod hub;
mod labels;
mod lint;
mod measures;
mod models;
mod notices;
mod pipes;
mod places;
mod tables;
mod texts;

mod peft;
mod seam;

mod full_disk;
mod interrupted;
mod quantised;
mod resumed;
mod wrong;
