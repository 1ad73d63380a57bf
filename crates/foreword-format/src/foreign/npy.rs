//! NumPy's `.npy`: a matrix of numbers with a one-line header.

use std::path::Path;

use half::f16;

use super::{ForeignError, damaged};
use crate::soft_prompt::SoftPrompt;

/// The magic bytes.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// Maximum size of a header in bytes.
const MOST_HEADER: usize = 1 << 16;
/// The alignment of the numbers.
const ALIGNED: usize = 64;

/// A prompt as `.npy`: `[P, W]`, single precision, row by row.
pub fn to_npy(rows: &SoftPrompt) -> Vec<u8> {
    let shape = format!("({}, {})", rows.n_virtual(), rows.width());
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let head = MAGIC.len() + 4;
    let spaces = (ALIGNED - (head + header.len() + 1) % ALIGNED) % ALIGNED;
    header.push_str(&" ".repeat(spaces));
    header.push('\n');
    // A header of two numbers is far shorter than 65,536 bytes.
    let length = u16::try_from(header.len()).unwrap_or(u16::MAX);
    let mut bytes = [MAGIC, &[1, 0], &length.to_le_bytes(), header.as_bytes()].concat();
    bytes.extend(rows.values().iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// Reads a matrix of any floating-point type, row by row.
pub(super) fn read(bytes: &[u8], path: &Path) -> Result<SoftPrompt, ForeignError> {
    let cut = || damaged(path, "the .npy file is truncated");
    let rest = &bytes[MAGIC.len().min(bytes.len())..];
    let (length, start) = match rest.first() {
        Some(1) => (rest.get(2..4).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]]))), 4),
        Some(2 | 3) => (rest.get(2..6).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize), 6),
        Some(version) => return Err(damaged(path, format!("version {version} of .npy is not known"))),
        None => return Err(cut()),
    };
    let length = length.filter(|&length| length <= MOST_HEADER).ok_or_else(cut)?;
    let header = rest.get(start..start + length).ok_or_else(cut)?;
    let body = &rest[start + length..];
    let header = std::str::from_utf8(header).map_err(|_| damaged(path, "the .npy header is no text"))?;
    let (kind, n_virtual, width) = described(header).map_err(|reason| damaged(path, reason))?;
    let size = match kind {
        "<f2" => 2,
        "<f4" => 4,
        "<f8" => 8,
        other => {
            let reason = format!(
                "the array holds {other:?}; only '<f4', '<f2' and '<f8' are read: save array.astype('<f4')"
            );
            return Err(damaged(path, reason));
        }
    };
    let expected = n_virtual.checked_mul(width).and_then(|n| n.checked_mul(size));
    if expected != Some(body.len()) {
        let reason = format!("an array of [{n_virtual}, {width}] and {kind:?} has not {} bytes", body.len());
        return Err(damaged(path, reason));
    }
    let values = match size {
        2 => body.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        4 => body.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        _ => body.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
    };
    Ok(SoftPrompt::new(values, n_virtual, width)?)
}

/// Reads type and shape from the header, a Python dictionary with three entries.
fn described(header: &str) -> Result<(&str, usize, usize), String> {
    let after = |key: &str| {
        let at = header.find(&format!("'{key}':")).ok_or_else(|| format!("the .npy header has no {key}"))?;
        Ok::<_, String>(header[at + key.len() + 3..].trim_start())
    };
    let kind = after("descr")?;
    let kind = kind.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
    let kind = kind.ok_or("the array holds records, not numbers")?.0;
    if !after("fortran_order")?.starts_with("False") {
        return Err("the array lies column after column: save numpy.ascontiguousarray(array)".to_owned());
    }
    let shape = after("shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let shape = shape.ok_or("the .npy header has no shape")?.0;
    let sizes: Option<Vec<usize>> = shape
        .split(',')
        .map(str::trim)
        .filter(|size| !size.is_empty())
        .map(|size| size.parse().ok())
        .collect();
    match sizes.as_deref() {
        Some(&[n_virtual, width]) => Ok((kind, n_virtual, width)),
        _ => Err(format!("an array of the shape ({shape}) is no prompt, which is [virtual tokens, width]")),
    }
}
