//! `adapter_model.safetensors`: what is refused, and that values survive.

use foreword_format::{FormatError, SoftPrompt};
use half::{bf16, f16};
use proptest::prelude::*;

use crate::fixtures::{check_error, one_tensor, rows, safetensors};

#[track_caller]
fn check_refused(bytes: &[u8], parts: &[&str]) {
    check_error(&SoftPrompt::from_safetensors(bytes).unwrap_err(), parts);
}

#[test]
fn the_bytes_are_those_that_peft_writes() {
    let rows = SoftPrompt::new(vec![1.0, -2.0], 1, 2).unwrap();
    let header = r#"{"__metadata__":{"format":"pt"},"prompt_embeddings":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#;
    let padded = format!("{header:<104}");
    let body = [0, 0, 128, 63, 0, 0, 0, 192];
    assert_eq!(rows.to_safetensors().unwrap(), safetensors(&padded, &body));
}

#[test]
fn half_precision_becomes_f32() {
    let values = [0.5f32, -3.25, 65504.0, 1.0e-7];
    let halves: Vec<u8> = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
    let read =
        SoftPrompt::from_safetensors(&one_tensor("prompt_embeddings", "F16", &[2, 2], &halves)).unwrap();
    assert_eq!(read.values(), values.map(|v| f16::from_f32(v).to_f32()));
    assert_eq!(read.values()[..3], values[..3]);

    let values = [0.5f32, -3.25, 1.0e38, 1.0e-30];
    let brains: Vec<u8> = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    let read =
        SoftPrompt::from_safetensors(&one_tensor("prompt_embeddings", "BF16", &[2, 2], &brains)).unwrap();
    assert_eq!(read.values(), values.map(|v| bf16::from_f32(v).to_f32()));
    assert_eq!(read.values()[..2], values[..2]);
}

#[test]
fn a_value_that_is_not_finite_is_refused_with_its_position() {
    let mut bytes = rows(3, 4).to_safetensors().unwrap();
    let at = bytes.len() - 12 * 4 + (2 * 4 + 1) * 4;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    check_refused(&bytes, &["row 2, column 1", "NaN"]);
    bytes[at..at + 4].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    check_refused(&bytes, &["row 2, column 1", "-inf"]);

    let infinite = [f16::ONE, f16::INFINITY].map(f16::to_le_bytes).concat();
    check_refused(&one_tensor("prompt_embeddings", "F16", &[2, 1], &infinite), &["row 1, column 0", "inf"]);
}

#[test]
fn a_header_that_claims_too_much_is_refused_before_memory_is_taken() {
    for claimed in [u64::MAX, u64::MAX - 7, 1 << 62, 1 << 40, (1 << 20) + 1] {
        let mut bytes = claimed.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        let error = SoftPrompt::from_safetensors(&bytes).unwrap_err();
        assert!(matches!(error, FormatError::HeaderTooLarge { claimed: c, .. } if c == claimed), "{error}");
    }
    let mut bytes = (1u64 << 20).to_le_bytes().to_vec();
    bytes.extend(b"{}");
    check_refused(&bytes, &["10 bytes", "1048584"]);
    check_refused(b"", &["0 bytes"]);
    check_refused(b"1234567", &["7 bytes"]);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let name = "prompt_embeddings";
    check_refused(&one_tensor(name, "F32", &[2, 2], &[0; 12]), &["header", "invalid shape"]);
    check_refused(&one_tensor(name, "F32", &[usize::MAX, 2], &[0; 12]), &["overflow"]);
    check_refused(&one_tensor(name, "F32", &[4], &[0; 16]), &["[4]", "matrix"]);
    check_refused(&one_tensor(name, "F32", &[1, 2, 2], &[0; 16]), &["[1, 2, 2]"]);
    check_refused(&one_tensor(name, "F32", &[0, 8], &[]), &["0 virtual tokens"]);
    check_refused(&one_tensor(name, "F32", &[8, 0], &[]), &["of 0 numbers"]);
    check_refused(&one_tensor(name, "F64", &[1, 2], &[0; 16]), &["F64", "BF16"]);
    check_refused(&one_tensor(name, "I8", &[1, 2], &[0; 2]), &["I8"]);
    check_refused(&one_tensor(name, "F33", &[1, 2], &[0; 8]), &["F33"]);
    check_refused(&one_tensor("prompt_embedding", "F32", &[1, 2], &[0; 8]), &["prompt_embedding\""]);
    check_refused(&safetensors("{}", b""), &["no tensor prompt_embeddings"]);
    check_refused(&safetensors("not json", b""), &["header"]);
    let negative = r#"{"prompt_embeddings":{"dtype":"F32","shape":[-1,2],"data_offsets":[0,8]}}"#;
    check_refused(&safetensors(negative, &[0; 8]), &["header"]);
}

#[test]
fn offsets_that_would_overflow_are_refused() {
    // Tensors that each pass, but together end at the last address.
    let quarter = 1u64 << 60;
    let mut header = String::from("{");
    for idx in 0..16 {
        let (start, end) =
            (idx * u128::from(quarter), ((idx + 1) * u128::from(quarter)).min(u128::from(u64::MAX)));
        header += &format!(
            r#"{}"t{idx:02}":{{"dtype":"U8","shape":[{}],"data_offsets":[{start},{end}]}}"#,
            if idx == 0 { "" } else { "," },
            end - start
        );
    }
    header.push('}');
    check_refused(&safetensors(&header, &[0; 8]), &["18446744073709551615", "8 bytes"]);
}

#[test]
fn bytes_before_or_after_the_tensor_are_refused() {
    let mut bytes = rows(2, 2).to_safetensors().unwrap();
    bytes.push(0);
    check_refused(&bytes, &["17 bytes", "16"]);
    bytes.truncate(bytes.len() - 2);
    check_refused(&bytes, &["15 bytes", "16"]);
    let gap = r#"{"prompt_embeddings":{"dtype":"F32","shape":[1,1],"data_offsets":[4,8]}}"#;
    check_refused(&safetensors(gap, &[0; 8]), &["invalid offset"]);
}

fn finite() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |value| value.is_finite())
}

proptest! {
    #[test]
    fn values_survive_to_the_bit(
        (n_virtual, hidden, values) in (1usize..6, 1usize..9)
            .prop_flat_map(|(p, h)| (Just(p), Just(h), proptest::collection::vec(finite(), p * h)))
    ) {
        let rows = SoftPrompt::new(values.clone(), n_virtual, hidden).unwrap();
        let bytes = rows.to_safetensors().unwrap();
        prop_assert_eq!(&bytes, &rows.to_safetensors().unwrap());
        let read = SoftPrompt::from_safetensors(&bytes).unwrap();
        prop_assert_eq!((read.n_virtual(), read.width()), (n_virtual, hidden));
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(read.values()), bits(&values));
    }
}
