//! Soft prompt tuning: what is learned, from what, and how.
