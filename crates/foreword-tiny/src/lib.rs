//! foreword-tiny, a language model of 3.9 million parameters, compiled into the program.
//!
//! The README beside this file is its model card: what it was trained on, what it can do and what it is not for.

/// The name by which `--model` and prompt directories know it.
pub const NAME: &str = "foreword-tiny";

/// `config.json`.
pub static CONFIG: &[u8] = include_bytes!("../config.json");

/// `tokenizer.json`.
pub static TOKENIZER: &[u8] = include_bytes!("../tokenizer.json");

/// `model.safetensors`, at an address as round as that of a mapped file.
pub static WEIGHTS: &[u8] = &ALIGNED.0;

static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!("../model.safetensors"));

#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

#[cfg(test)]
mod tests {
    #[test]
    fn the_weights_are_aligned() {
        assert!(super::WEIGHTS.as_ptr().addr().is_multiple_of(64));
    }
}
