//! The tokenizer: read, and then used in both directions.

use foreword::Tokenizer;

/// Texts with spaces, letters of several scripts, digits, punctuation and nothing.
const TEXTS: [&str; 4] = ["", "A fine day, isn't it?", " positive", "naïve 好 123\n\u{1f600}"];

pub(crate) fn tokenizer(bytes: &[u8]) {
    let Ok(tokenizer) = Tokenizer::from_bytes(bytes) else { return };
    for text in TEXTS {
        let _ = tokenizer.encode_joined(text);
        let _ = tokenizer.encode_verbatim(text);
        if let Ok(ids) = tokenizer.encode_context(text) {
            let _ = tokenizer.decode(&ids);
        }
    }
    let _ = tokenizer.encode_contexts(&TEXTS.map(str::to_owned));
    let most = tokenizer.largest_id().min(16);
    for id in 0..=most {
        let _ = tokenizer.token(id);
    }
}
