//! Files of `torch.save`: since version 1.6, an archive with a pickle and its numbers.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};

use super::pickle::{self, Id, Kind, Node, Stopped};
use super::{ForeignError, Tensor, damaged, zip};

/// Maximum number of tensors, and their maximum depth in dictionaries.
const MOST_TENSORS: usize = 1_000;
const DEEPEST: usize = 8;
/// Maximum number of dictionary entries visited: a pickle can refer to one dictionary many times.
const MOST_ENTRIES: usize = 100_000;

/// All tensors of a file, with their paths. Integer tensors are returned without numbers.
pub(super) fn read(bytes: &[u8], path: &Path) -> Result<Vec<Tensor>, ForeignError> {
    let entries = zip::entries(bytes).map_err(|reason| damaged(path, reason))?;
    let found = entries.iter().find_map(|(name, bytes)| Some((name.strip_suffix("data.pkl")?, *bytes)));
    let (root, program) =
        found.ok_or_else(|| damaged(path, "an archive without data.pkl, so not from torch"))?;
    if entries.get(format!("{root}byteorder").as_str()).is_some_and(|order| *order == b"big") {
        return Err(damaged(path, "numbers whose highest byte comes first are not read"));
    }
    let (nodes, value) = pickle::read(program).map_err(|stopped| match stopped {
        Stopped::Refused(name) => ForeignError::Refused { path: path.to_owned(), name },
        Stopped::Damaged(reason) => damaged(path, reason),
    })?;
    let mut found = Found { nodes: &nodes, tensors: Vec::new(), n_entries: 0 };
    found.look(value, "", 0).map_err(|reason| damaged(path, reason))?;
    let mut room = bytes.len();
    let tensor = |(name, id)| {
        let tensor = numbers(&nodes, id, (&entries, root), &mut room);
        let (shape, values) =
            tensor.map_err(|reason| damaged(path, format!("the tensor {name:?}: {reason}")))?;
        Ok(Tensor { name, shape, values })
    };
    found.tensors.into_iter().map(tensor).collect()
}

/// The tensors of a pickle, found in its dictionaries and lists.
struct Found<'n> {
    nodes: &'n [Node],
    tensors: Vec<(String, Id)>,
    n_entries: usize,
}

impl Found<'_> {
    fn look(&mut self, id: Id, name: &str, depth: usize) -> Result<(), String> {
        self.n_entries += 1;
        if self.n_entries > MOST_ENTRIES || self.tensors.len() > MOST_TENSORS || depth > DEEPEST {
            return Err("too many or too deep dictionaries for a prompt".to_owned());
        }
        let joined = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
        match &self.nodes[id] {
            Node::Tensor { .. } => self.tensors.push((name.to_owned(), id)),
            Node::Dict(entries) => {
                for &(key, value) in entries {
                    let key = match &self.nodes[key] {
                        Node::Text(key) => key.chars().take(100).collect(),
                        Node::Int(key) => key.to_string(),
                        _ => continue,
                    };
                    self.look(value, &joined(&key), depth + 1)?;
                }
            }
            Node::List(items) | Node::Tuple(items) => {
                for (i, &item) in items.iter().enumerate() {
                    self.look(item, &joined(&i.to_string()), depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A tensor's shape and numbers. All tensors together have at most as many numbers as the file has bytes: `room` is the
/// remainder.
fn numbers(
    nodes: &[Node],
    id: Id,
    (entries, root): (&BTreeMap<&str, &[u8]>, &str),
    room: &mut usize,
) -> Result<(Vec<usize>, Vec<f32>), String> {
    let Node::Tensor { storage, offset, shape, strides } = &nodes[id] else { return Err("none".to_owned()) };
    let Node::Storage { kind, key, n } = &nodes[*storage] else { return Err("no storage".to_owned()) };
    let bytes = entries.get(format!("{root}data/{key}").as_str());
    let bytes = *bytes.ok_or_else(|| format!("its numbers, {root}data/{key}, are not in the archive"))?;
    if n.checked_mul(kind.size()) != Some(bytes.len()) {
        return Err(format!(
            "{n} numbers of {} bytes are stated, and {} bytes are there",
            kind.size(),
            bytes.len()
        ));
    }
    let n_values = shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size));
    let n_values = n_values.filter(|&n_values| n_values <= *n && shape.len() == strides.len());
    let n_values =
        n_values.ok_or_else(|| format!("the shape {shape:?} takes more numbers than are there"))?;
    let is_whole = matches!(kind, Kind::Whole(_));
    *room = room
        .checked_sub(if is_whole { 0 } else { n_values })
        .ok_or("more numbers than the file has bytes")?;
    if n_values == 0 || is_whole {
        return Ok((shape.clone(), Vec::new()));
    }
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(*offset, |at, (&size, &stride)| at.checked_add((size - 1).checked_mul(stride)?));
    if last.is_none_or(|last| last >= *n) {
        return Err(format!("the strides {strides:?} lead beyond its numbers"));
    }
    let mut values = Vec::with_capacity(n_values);
    let mut place = vec![0; shape.len()];
    for _ in 0..n_values {
        let at = place.iter().zip(strides).fold(*offset, |at, (&i, &stride)| at + i * stride);
        values.push(kind.number(bytes, at).ok_or("a number beyond its storage")?);
        for (i, &size) in place.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < size {
                break;
            }
            *i = 0;
        }
    }
    Ok((shape.clone(), values))
}

impl Kind {
    fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Whole(size) => size,
        }
    }

    fn number(self, bytes: &[u8], at: usize) -> Option<f32> {
        let size = self.size();
        let bytes = bytes.get(at * size..(at + 1) * size)?;
        Some(match self {
            Self::F16 => f16::from_le_bytes(bytes.try_into().ok()?).to_f32(),
            Self::Bf16 => bf16::from_le_bytes(bytes.try_into().ok()?).to_f32(),
            Self::F32 => f32::from_le_bytes(bytes.try_into().ok()?),
            Self::F64 => f64::from_le_bytes(bytes.try_into().ok()?) as f32,
            Self::Whole(_) => return None,
        })
    }
}
