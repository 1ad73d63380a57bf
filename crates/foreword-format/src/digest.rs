//! Digests in a single spelling, `sha256:<hex>`, which identify files, tables and data sets.

use sha2::{Digest as _, Sha256};

/// The prefix of every digest.
const PREFIX: &str = "sha256:";

/// The digest of `bytes`, as `sha256:` and 64 lower-case hexadecimal digits.
///
/// ```
/// let digest = foreword_format::digest::sha256(b"abc");
/// assert_eq!(digest, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
/// ```
pub fn sha256(bytes: &[u8]) -> String {
    let mut digest = Digest::new();
    digest.update(bytes);
    digest.finish()
}

/// Whether `text` has the form of a digest of [`sha256`].
pub fn is_sha256(text: &str) -> bool {
    text.strip_prefix(PREFIX)
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// An incremental digest: the boundaries of the pieces do not matter.
#[derive(Debug, Clone, Default)]
pub struct Digest {
    state: Sha256,
}

impl Digest {
    /// An empty digest.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
    }

    /// The digest of everything added, in the form of [`sha256`].
    pub fn finish(self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::from(PREFIX);
        for byte in self.state.finalize() {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_give_the_digest_of_the_whole() {
        let mut digest = Digest::new();
        digest.update(b"fore");
        digest.update(b"");
        digest.update(b"word");
        assert_eq!(digest.finish(), sha256(b"foreword"));
        assert_ne!(sha256(b"foreword"), sha256(b"Foreword"));
    }

    #[test]
    fn the_spelling_is_recognised_and_nothing_else() {
        let good = sha256(b"");
        assert_eq!(good, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert!(is_sha256(&good));
        assert!(!is_sha256(&good.to_uppercase()));
        assert!(!is_sha256(&good[7..]));
        assert!(!is_sha256(&good[..70]));
        assert!(!is_sha256(""));
    }
}
