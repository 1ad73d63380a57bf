//! GGUF files, the format of llama.cpp. This module reads them; those below translate them into the `config.json`, the
//! tokenizer and the tensor names that a family knows.
//!
//! | module | from | to |
//! |---|---|---|
//! | `config` | metadata | `config.json` |
//! | `inferred` | texts and names | what other readers infer from them |
//! | `names` | names of tensors | those of the family |
//! | `parts` | several files | one model |
//! | `pre_tokenizers` | their names | parts of a `tokenizer.json` |
//! | `tokenizer` | metadata | `tokenizer.json`, and back |
//! | `write` | a model's files | a GGUF file |
//!
//! The reader trusts nothing that it has not checked against the file's length, and copies nothing that can stay mapped: the
//! metadata's arrays are read in place, on demand.

pub(crate) mod config;
pub(crate) mod inferred;
pub(crate) mod names;
pub(crate) mod parts;
mod pre_tokenizers;
pub(crate) mod tokenizer;
pub(crate) mod write;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use foreword_kernels::Dtype;

use crate::error::BackboneError;

const MAGIC: &[u8; 4] = b"GGUF";
/// Alignment of tensors, unless a file states another.
const ALIGNMENT: u64 = 32;
/// The largest alignment that a file may state.
const MAX_ALIGNMENT: u64 = 1 << 20;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 4;

/// Whether these bytes begin like a GGUF file.
pub(crate) fn is_gguf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// ggml's numbers of the formats.
const DTYPES: [(Dtype, u32); 16] = [
    (Dtype::F32, 0),
    (Dtype::F16, 1),
    (Dtype::Q4_0, 2),
    (Dtype::Q4_1, 3),
    (Dtype::Q5_0, 6),
    (Dtype::Q5_1, 7),
    (Dtype::Q8_0, 8),
    (Dtype::Q2K, 10),
    (Dtype::Q3K, 11),
    (Dtype::Q4K, 12),
    (Dtype::Q5K, 13),
    (Dtype::Q6K, 14),
    (Dtype::Iq4Nl, 20),
    (Dtype::Iq4Xs, 23),
    (Dtype::Bf16, 30),
    (Dtype::Mxfp4, 39),
];

/// ggml's names of formats that are not read.
const NOT_READ: [(u32, &str); 17] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (40, "NVFP4"),
];

/// The format of a tensor by ggml's number, or ggml's name for one that is not read.
fn dtype(number: u32) -> Result<Dtype, String> {
    let known = DTYPES.iter().find(|(_, n)| *n == number).map(|&(dtype, _)| dtype);
    let name = || NOT_READ.iter().find(|(n, _)| *n == number).map(|(_, name)| (*name).to_owned());
    known.ok_or_else(|| name().unwrap_or_else(|| format!("ggml's format {number}")))
}

/// A value of the metadata.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Integer(i128),
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(&'a [u8]),
    Array(Array<'a>),
}

impl<'a> Value<'a> {
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        if let Self::Text(bytes) = self { Some(String::from_utf8_lossy(bytes)) } else { None }
    }

    pub(crate) fn integer(self) -> Option<i128> {
        if let Self::Integer(number) = self { Some(number) } else { None }
    }

    /// The number, in the order of others of its type.
    pub(crate) fn rough_number(self) -> Option<f64> {
        if let Self::F32(number) = self { Some(number.into()) } else { self.number() }
    }

    /// The number with this shortest decimal: 1e-5, not the single-precision number next to it.
    pub(crate) fn number(self) -> Option<f64> {
        match self {
            Self::F32(number) => number.to_string().parse().ok(),
            Self::F64(number) => Some(number),
            Self::Integer(number) => Some(number as f64),
            _ => None,
        }
    }
}

/// An array of the metadata, in place. Its items were checked to be within the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Array<'a> {
    kind: u32,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Its items in order.
    pub(crate) fn items(self) -> impl Iterator<Item = Value<'a>> {
        let mut reader = Reader { bytes: self.bytes, at: 0 };
        (0..self.len).map_while(move |_| reader.value(self.kind).ok())
    }
}

/// A tensor as the file describes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorInfo {
    /// Its format, or the name of one that is not read.
    pub(crate) dtype: Result<Dtype, String>,
    /// Outermost dimension first; the file has the reverse order.
    pub(crate) shape: Vec<usize>,
    /// Which part of the model it is in, from 0.
    pub(crate) part: usize,
    /// Its bytes in the file.
    pub(crate) range: Range<usize>,
}

/// The metadata and tensor table of a GGUF file, checked against the file's length.
pub(crate) struct Gguf<'a> {
    /// The file's name, for messages.
    pub(crate) file: String,
    pub(crate) metadata: BTreeMap<&'a str, Value<'a>>,
    pub(crate) tensors: BTreeMap<&'a str, TensorInfo>,
}

impl<'a> Gguf<'a> {
    /// Reads the metadata and the table of tensors.
    pub(crate) fn parse(file: &str, bytes: &'a [u8]) -> Result<Self, BackboneError> {
        Self::parse_beginning(file, bytes, bytes.len() as u64)
    }

    /// The same from the beginning of a file that will have `len` bytes.
    fn parse_beginning(file: &str, bytes: &'a [u8], len: u64) -> Result<Self, BackboneError> {
        parse(bytes, len)
            .map(|(metadata, tensors)| Self { file: file.to_owned(), metadata, tensors })
            .map_err(|detail| BackboneError::Gguf { file: file.to_owned(), detail })
    }

    /// An error about the metadata.
    pub(crate) fn wrong(&self, detail: impl Into<String>) -> BackboneError {
        BackboneError::GgufMetadata { file: self.file.clone(), detail: detail.into() }
    }

    fn get(&self, key: &str) -> Option<Value<'a>> {
        self.metadata.get(key).copied()
    }

    fn typed<T>(
        &self,
        key: &str,
        what: &str,
        of: fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, BackboneError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        of(value).map(Some).ok_or_else(|| self.wrong(format!("`{key}` is no {what}")))
    }

    /// A string; bytes that are not UTF-8 are replaced.
    pub(crate) fn text(&self, key: &str) -> Result<Option<Cow<'a, str>>, BackboneError> {
        self.typed(key, "string", Value::text)
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, BackboneError> {
        self.typed(key, "boolean", |value| if let Value::Bool(flag) = value { Some(flag) } else { None })
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>, BackboneError> {
        self.typed(key, "number", Value::number)
    }

    /// A count, which may be an array of the same count for every layer.
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>, BackboneError> {
        self.typed(key, "whole number that is the same for all layers", |value| match value {
            Value::Array(array) => {
                let mut items = array.items();
                let first = items.next()?;
                items.all(|item| item == first).then(|| first.integer()).flatten()
            }
            one => one.integer(),
        })?
        .map(|number| {
            let fits = usize::try_from(number).ok().filter(|&n| n < 1 << 31);
            fits.ok_or_else(|| self.wrong(format!("`{key}` is {number}, which is no size")))
        })
        .transpose()
    }

    pub(crate) fn array(&self, key: &str) -> Result<Option<Array<'a>>, BackboneError> {
        self.typed(key, "array", |value| if let Value::Array(array) = value { Some(array) } else { None })
    }

    /// `general.architecture`.
    pub(crate) fn architecture(&self) -> Result<Cow<'a, str>, BackboneError> {
        self.text("general.architecture")?.ok_or_else(|| self.wrong("`general.architecture` is missing"))
    }
}

/// Both tables of a file.
type Tables<'a> = (BTreeMap<&'a str, Value<'a>>, BTreeMap<&'a str, TensorInfo>);

fn parse(bytes: &[u8], len: u64) -> Result<Tables<'_>, String> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take(4)? != MAGIC {
        return Err("it does not begin with GGUF".into());
    }
    match reader.u32()? {
        2 | 3 => {}
        1 => return Err("it is of version 1; versions 2 and 3 are read".into()),
        version if version.swap_bytes() <= 3 => {
            return Err("its numbers are big-endian, which is not read".into());
        }
        version => return Err(format!("it is of version {version}; versions 2 and 3 are read")),
    }
    // A tensor takes 24 bytes at least, a key 13.
    let n_tensors = reader.count(24, "tensors")?;
    let n_keys = reader.count(13, "keys")?;
    let mut metadata = BTreeMap::new();
    for _ in 0..n_keys {
        let key = reader.name()?;
        let kind = reader.u32()?;
        let value = reader.value(kind).map_err(|detail| format!("key `{key}`: {detail}"))?;
        if metadata.insert(key, value).is_some() {
            return Err(format!("key `{key}` is duplicated"));
        }
    }
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT,
        Some(value) => value
            .integer()
            .and_then(|n| u64::try_from(n).ok())
            .filter(|n| n.is_power_of_two() && *n <= MAX_ALIGNMENT)
            .ok_or("`general.alignment` is no power of two up to 2²⁰")?,
    };
    let mut entries = Vec::new();
    for _ in 0..n_tensors {
        entries.push(reader.tensor(alignment)?);
    }
    let data = (reader.at as u64).next_multiple_of(alignment);
    Ok((metadata, place_tensors(entries, data, len)?))
}

/// The ranges of the tensors. None may leave the file or share bytes with another.
fn place_tensors(
    entries: Vec<TensorEntry<'_>>,
    data: u64,
    len: u64,
) -> Result<BTreeMap<&str, TensorInfo>, String> {
    let mut tensors = BTreeMap::new();
    let mut ranges = Vec::new();
    for TensorEntry { name, dtype, shape, n_bytes, offset } in entries {
        let start = data.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(n_bytes)).filter(|&end| end <= len);
        let (Some(start), Some(end)) = (start, end) else {
            return Err(format!("tensor `{name}` leaves the file"));
        };
        if start < end {
            ranges.push((start, end, name));
        }
        let info = TensorInfo { dtype, shape, part: 0, range: start as usize..end as usize };
        if tensors.insert(name, info).is_some() {
            return Err(format!("tensor `{name}` is duplicated"));
        }
    }
    ranges.sort_unstable();
    match ranges.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => Err(format!("tensors `{}` and `{}` share bytes", pair[0].2, pair[1].2)),
        None => Ok(tensors),
    }
}

/// An entry of the tensor table.
struct TensorEntry<'a> {
    name: &'a str,
    dtype: Result<Dtype, String>,
    shape: Vec<usize>,
    n_bytes: u64,
    offset: u64,
}

/// A cursor over the file.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| format!("it ends in byte {}", self.bytes.len()))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.first_chunk().copied().unwrap_or([0; N]))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.fixed()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.fixed()?))
    }

    /// A count of items of at least `least` bytes each: at most what the rest of the file holds.
    fn count(&mut self, least: usize, what: &str) -> Result<usize, String> {
        let n = self.u64()?;
        let max = (self.bytes.len() - self.at) / least;
        usize::try_from(n)
            .ok()
            .filter(|&n| n <= max)
            .ok_or_else(|| format!("it claims {n} {what}, more than fit into it"))
    }

    fn text(&mut self) -> Result<&'a [u8], String> {
        let n = self.count(1, "bytes of a string")?;
        self.take(n)
    }

    fn name(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.text()?).map_err(|_| format!("a name before byte {} is no UTF-8", self.at))
    }

    fn value(&mut self, kind: u32) -> Result<Value<'a>, String> {
        Ok(match kind {
            0 => Value::Integer(u8::from_le_bytes(self.fixed()?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.fixed()?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.fixed()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.fixed()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.fixed()?).into()),
            6 => Value::F32(f32::from_le_bytes(self.fixed()?)),
            7 => match self.fixed()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(format!("{other} is no boolean")),
            },
            8 => Value::Text(self.text()?),
            9 => Value::Array(self.array()?),
            10 => Value::Integer(self.u64()?.into()),
            11 => Value::Integer(i64::from_le_bytes(self.fixed()?).into()),
            12 => Value::F64(f64::from_le_bytes(self.fixed()?)),
            other => return Err(format!("{other} is no type of a value")),
        })
    }

    fn array(&mut self) -> Result<Array<'a>, String> {
        let kind = self.u32()?;
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => return Err("arrays of arrays are not read".into()),
            other => return Err(format!("{other} is no type of a value")),
        };
        let len = self.count(size, "items of an array")?;
        let start = self.at;
        if kind == 8 || kind == 7 {
            for _ in 0..len {
                self.value(kind)?;
            }
        } else {
            self.take(len * size)?;
        }
        Ok(Array { kind, len, bytes: &self.bytes[start..self.at] })
    }

    fn tensor(&mut self, alignment: u64) -> Result<TensorEntry<'a>, String> {
        let name = self.name()?;
        let n = self.u32()? as usize;
        if n > MAX_DIMENSIONS {
            return Err(format!("tensor `{name}` has {n} dimensions"));
        }
        let mut shape = Vec::with_capacity(n);
        for _ in 0..n {
            shape.push(usize::try_from(self.u64()?).map_err(|_| format!("tensor `{name}` is too large"))?);
        }
        let dtype = dtype(self.u32()?);
        let offset = self.u64()?;
        if !offset.is_multiple_of(alignment) {
            return Err(format!("tensor `{name}` begins at no multiple of {alignment}"));
        }
        // ggml's first dimension is the innermost: a row, of integer blocks.
        let rows = shape.iter().skip(1).try_fold(1usize, |n, &d| n.checked_mul(d));
        let n_bytes = match &dtype {
            Ok(dtype) => rows
                .and_then(|rows| dtype.bytes(shape.first().copied().unwrap_or(1))?.checked_mul(rows))
                .ok_or_else(|| format!("tensor `{name}` {shape:?} can't be stored as {}", dtype.name()))?,
            Err(_) => 0,
        };
        shape.reverse();
        Ok(TensorEntry { name, dtype, shape, n_bytes: n_bytes as u64, offset })
    }
}

#[cfg(test)]
mod tests;
