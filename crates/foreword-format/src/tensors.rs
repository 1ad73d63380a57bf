//! `adapter_model.safetensors`: one tensor, `prompt_embeddings`, read with all sizes checked first and written as PEFT
//! does.

use std::collections::HashMap;
use std::io::{ErrorKind, Read};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorView};

use crate::digest::Digest;
use crate::error::{FormatError, Origin};
use crate::soft_prompt::SoftPrompt;

/// PEFT's name of the soft prompt.
const TENSOR: &str = "prompt_embeddings";
/// Maximum size of the tensors in bytes; enough for 2,000 virtual tokens of a hidden size of 100,000.
pub(crate) const MAX_TENSORS_BYTES: u64 = 1 << 30;
/// Maximum size of the header in bytes; that of a soft prompt has about a hundred.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// The size of the header's length.
const LENGTH_BYTES: u64 = 8;

/// A soft prompt as stored: sizes checked, values not yet.
pub(crate) struct StoredRows {
    dtype: Dtype,
    n_rows: usize,
    width: usize,
    body: Vec<u8>,
    origin: Origin,
    digest: String,
}

impl StoredRows {
    /// Reads a safetensors file of `bytes` bytes. Allocates no more memory than the size of the file.
    pub(crate) fn read(reader: &mut impl Read, bytes: u64, origin: Origin) -> Result<Self, FormatError> {
        let mut digest = Digest::new();
        let header = read_header(reader, bytes, &origin, &mut digest)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|source| FormatError::Header { origin: origin.clone(), source })?;

        let announced = metadata.data_len() as u64;
        let found = bytes.saturating_sub(LENGTH_BYTES + header.len() as u64);
        if announced != found {
            return Err(FormatError::DataLength { origin, announced, found });
        }
        let names = metadata.offset_keys();
        let Some(info) = metadata.info(TENSOR) else {
            let found = names.into_iter().take(3).collect();
            return Err(FormatError::NoPromptTensor { origin, found });
        };
        if let Some(name) = names.into_iter().find(|name| name != TENSOR) {
            return Err(FormatError::ExtraTensor { origin, name });
        }
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(FormatError::Dtype { origin, found: info.dtype.to_string() });
        }
        let &[n_rows, width] = info.shape.as_slice() else {
            return Err(FormatError::Rank { origin, shape: info.shape.clone() });
        };

        // One tensor that covers the whole body: its length was compared with its shape and type in the header.
        let body = read_exactly(reader, found, &origin)?;
        digest.update(&body);
        Ok(Self { dtype: info.dtype, n_rows, width, body, origin, digest: digest.finish() })
    }

    /// The digest of the whole file.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// The number of rows in the file.
    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The first `n_virtual` rows as numbers. [n_virtual, W]
    pub(crate) fn decode(self, n_virtual: usize) -> Result<SoftPrompt, FormatError> {
        let kept = n_virtual.min(self.n_rows).saturating_mul(self.width);
        let values: Vec<f32> = match self.dtype {
            Dtype::F16 => halves(&self.body).map(|bits| f16::from_bits(bits).to_f32()).take(kept).collect(),
            Dtype::BF16 => halves(&self.body).map(|bits| bf16::from_bits(bits).to_f32()).take(kept).collect(),
            _ => words(&self.body).map(f32::from_bits).take(kept).collect(),
        };
        SoftPrompt::from_origin(values, n_virtual, self.width, &self.origin)
    }
}

impl SoftPrompt {
    /// Reads the bytes of an `adapter_model.safetensors`. F16 and BF16 become f32.
    ///
    /// # Errors
    /// If the bytes are not a safetensors file with `prompt_embeddings` [P, W] of finite numbers and nothing else.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = bytes;
        let stored = StoredRows::read(&mut reader, bytes.len() as u64, Origin::Memory)?;
        let n_virtual = stored.n_rows();
        stored.decode(n_virtual)
    }

    /// The bytes of an `adapter_model.safetensors`: `prompt_embeddings` [P, W] F32. Equal rows give equal bytes.
    ///
    /// # Errors
    /// If the safetensors library fails, which should never happen.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, FormatError> {
        let encode = |source| FormatError::EncodeTensors { source };
        let body: Vec<u8> = self.values().iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = vec![self.n_virtual(), self.width()];
        let view = TensorView::new(Dtype::F32, shape, &body).map_err(encode)?;
        // One key: the library keeps the metadata in a HashMap, and several would be written in any order.
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize([(TENSOR, view)], Some(metadata)).map_err(encode)
    }
}

/// Reads the header and its length, and adds both to the digest.
fn read_header(
    reader: &mut impl Read,
    bytes: u64,
    origin: &Origin,
    digest: &mut Digest,
) -> Result<Vec<u8>, FormatError> {
    if bytes < LENGTH_BYTES {
        return Err(FormatError::Truncated { origin: origin.clone(), bytes, header: LENGTH_BYTES });
    }
    let mut length = [0; LENGTH_BYTES as usize];
    reader.read_exact(&mut length).map_err(|source| read_error(origin, source))?;
    let claimed = u64::from_le_bytes(length);
    if claimed > MAX_HEADER_BYTES {
        let limit = MAX_HEADER_BYTES;
        return Err(FormatError::HeaderTooLarge { origin: origin.clone(), claimed, limit });
    }
    let header = LENGTH_BYTES + claimed;
    if header > bytes {
        return Err(FormatError::Truncated { origin: origin.clone(), bytes, header });
    }
    let text = read_exactly(reader, claimed, origin)?;
    digest.update(&length);
    digest.update(&text);
    Ok(text)
}

/// Reads the next `count` bytes; fewer are an error.
fn read_exactly(reader: &mut impl Read, count: u64, origin: &Origin) -> Result<Vec<u8>, FormatError> {
    let mut bytes = Vec::new();
    let read = reader.take(count).read_to_end(&mut bytes).map_err(|source| read_error(origin, source))?;
    if read as u64 == count { Ok(bytes) } else { Err(read_error(origin, ErrorKind::UnexpectedEof.into())) }
}

/// A failed read, from a file or (never) from memory.
fn read_error(origin: &Origin, source: std::io::Error) -> FormatError {
    let path = match origin {
        Origin::File(path) => path.clone(),
        Origin::Memory => origin.to_string().into(),
    };
    FormatError::Io { action: "read", path, source }
}

/// The little-endian 16-bit numbers of `bytes`.
fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.as_chunks::<2>().0.iter().map(|&half| u16::from_le_bytes(half))
}

/// The little-endian 32-bit numbers of `bytes`.
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|&word| u32::from_le_bytes(word))
}
