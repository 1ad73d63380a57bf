//! Models from the Hugging Face hub: `org/name` becomes a directory on this machine.
//!
//! Files lie in the standard cache, as Python's huggingface_hub lays it out, so that what one has fetched the other finds.
//! Only what Foreword reads is fetched; it is checked by size, and by SHA-256 where the hub states that, before it gets its
//! name. Nothing is printed: what happens is told as [`Event`]s.

mod cache;
mod download;
mod error;
mod fetch;
mod http;
mod settings;
mod wanted;

pub use cache::{Cached, cached};
pub use error::HubError;
pub use fetch::{Event, Fetched, fetch, find};
pub use foreword_format::HubName;
pub use settings::{Settings, Token, cache_dir};
