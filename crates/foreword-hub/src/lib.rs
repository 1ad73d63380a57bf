//! Models from the Hugging Face hub: makes `org/name` available as a local directory.
//!
//! Files are stored in the standard cache, with the layout of Python's huggingface_hub, so the two share their downloads.
//! Only the files that Foreword reads are downloaded; each is checked by size, and by SHA-256 if the hub states it, before
//! it gets its final name. Nothing is printed: progress is reported as [`Event`]s.

mod cache;
mod download;
mod error;
mod fetch;
mod http;
mod settings;
mod short_names;
mod wanted;

pub use cache::{Cached, cached};
pub use error::HubError;
pub use fetch::{Event, Fetched, fetch, find};
pub use foreword_format::HubName;
pub use settings::{Settings, Token, cache_dir};
pub use short_names::full_name;
