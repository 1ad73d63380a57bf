//! The spelling of digests.

use sha2::{Digest, Sha256};

/// `sha256:` and the hexadecimal digest of all that `hash` was given.
pub(crate) fn spelled(hash: Sha256) -> String {
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
