//! SHA-256 digests as text.

use sha2::{Digest, Sha256};

/// `sha256:` and the hexadecimal digest.
pub(crate) fn hex(hash: Sha256) -> String {
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
