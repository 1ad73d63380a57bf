//! Damaged and random bytes: never a panic, and never taken for what was written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use foreword_format::{
    ADAPTER_FILE, AdapterConfig, Overwrite, PASSPORT_FILE, Passport, PromptDirectory, SoftPrompt,
    TENSORS_FILE,
};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::fixtures::{prompt, safetensors, snapshot};

/// The files of [`prompt`], written once: each is flushed to disk, which takes long on some.
static WRITTEN: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    prompt().write(dir.path(), Overwrite::Refuse).unwrap();
    snapshot(dir.path())
});

/// One way to damage a file.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Vec<(Index, u8)>),
    Truncate(Index),
    Remove(Index),
    Insert(Index, Vec<u8>),
    Replace(Vec<u8>),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Flip(flips) => flips.iter().for_each(|(at, mask)| *at.get_mut(bytes) ^= mask),
            Self::Truncate(at) => bytes.truncate(at.index(bytes.len())),
            Self::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
            Self::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Replace(other) => bytes.clone_from(other),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..64);
    prop_oneof![
        4 => proptest::collection::vec((any::<Index>(), 1..=u8::MAX), 1..4).prop_map(Damage::Flip),
        2 => any::<Index>().prop_map(Damage::Truncate),
        1 => any::<Index>().prop_map(Damage::Remove),
        1 => (any::<Index>(), bytes.clone()).prop_map(|(at, more)| Damage::Insert(at, more)),
        1 => bytes.prop_map(Damage::Replace),
    ]
}

fn file() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(ADAPTER_FILE), Just(TENSORS_FILE), Just(PASSPORT_FILE)]
}

/// Numbers as a header might hold them, small or absurd.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..16u64, Just(1 << 32), Just(1 << 61), Just(1 << 63), Just(u64::MAX), any::<u64>()]
}

fn tensor() -> impl Strategy<Value = String> {
    let dtype = prop_oneof![Just("F32"), Just("F16"), Just("BF16"), Just("U8"), Just("F4"), Just("BOOL")];
    (dtype, proptest::collection::vec(number(), 0..4), number(), number()).prop_map(
        |(dtype, shape, start, end)| {
            format!(r#"{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_damaged_directory_never_panics_and_its_rows_are_never_others(file in file(), damage in damage()) {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in WRITTEN.iter() {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let whole = &WRITTEN[file];
        let mut bytes = whole.clone();
        damage.apply(&mut bytes);
        fs::write(dir.path().join(file), &bytes).unwrap();
        match PromptDirectory::read(dir.path()) {
            Ok(read) => {
                prop_assert!(file != TENSORS_FILE || bytes == *whole, "damaged tensors were accepted");
                prop_assert_eq!(read.rows, prompt().rows);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn damaged_bytes_never_panic(damage in damage()) {
        let prompt = prompt();
        let path = Path::new("x");
        let mut bytes = prompt.rows.to_safetensors().unwrap();
        damage.apply(&mut bytes);
        if let Ok(rows) = SoftPrompt::from_safetensors(&bytes) {
            prop_assert!(rows.values().iter().all(|value| value.is_finite()));
            prop_assert_eq!(rows.values().len(), rows.n_virtual() * rows.width());
        }
        let mut bytes = prompt.adapter.unwrap().to_json().unwrap();
        damage.apply(&mut bytes);
        if let Ok(config) = AdapterConfig::from_json(&bytes, path) {
            prop_assert!(config.n_virtual() > 0 && config.width() > 0);
        }
        let passport = prompt.passport.unwrap();
        let mut bytes = passport.to_json(&passport.tensors_digest).unwrap();
        damage.apply(&mut bytes);
        if let Ok(read) = Passport::from_json(&bytes, path) {
            // What is accepted can be written, and is then the same.
            let again = read.to_json(&read.tensors_digest).unwrap();
            prop_assert_eq!(Passport::from_json(&again, path).unwrap(), read);
        }
    }

    #[test]
    fn headers_with_any_numbers_never_panic(
        tensors in proptest::collection::vec(tensor(), 1..4),
        named in any::<bool>(),
        body in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let entries: Vec<_> = tensors
            .iter()
            .enumerate()
            .map(|(idx, tensor)| match idx {
                0 if named => format!(r#""prompt_embeddings":{tensor}"#),
                _ => format!(r#""t{idx}":{tensor}"#),
            })
            .collect();
        let header = format!("{{{}}}", entries.join(","));
        if let Ok(rows) = SoftPrompt::from_safetensors(&safetensors(&header, &body)) {
            prop_assert!(rows.values().len() * 2 <= body.len());
        }
    }

    #[test]
    fn any_shape_is_read_if_and_only_if_the_body_fits(
        n_virtual in 0..5usize, hidden in 0..5usize, body in proptest::collection::vec(0..64u8, 0..80)
    ) {
        let bytes = crate::fixtures::one_tensor("prompt_embeddings", "F32", &[n_virtual, hidden], &body);
        let fits = n_virtual * hidden * 4 == body.len() && !body.is_empty();
        prop_assert_eq!(SoftPrompt::from_safetensors(&bytes).is_ok(), fits);
    }
}
