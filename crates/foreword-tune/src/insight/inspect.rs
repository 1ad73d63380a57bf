//! Compares learned rows with the model's embeddings: norms, nearest tokens, distance from the init.

use foreword_backbone::Model;
use foreword_backbone::kernels::{Backend, Token};
use foreword_format::SoftPrompt;

use crate::verbalizer::Verbalizer;

/// Default number of nearest tokens per row.
pub const DEFAULT_TOP: usize = 3;
/// Number of partial sums, for vectorisation.
const LANES: usize = 8;

/// A soft prompt compared with the embedding table E, `[V, H]`, of its model.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// Root mean square of ‖eᵥ‖ over the rows of the table.
    pub table_norm: f64,
    /// Mean cosine between two different rows of p; `None` for a single row.
    pub mean_cosine: Option<f64>,
    /// The virtual tokens, in order, `[P]`.
    pub rows: Vec<InspectedRow>,
}

/// A virtual token pᵢ.
#[derive(Clone, Debug, PartialEq)]
pub struct InspectedRow {
    /// ‖pᵢ‖.
    pub norm: f64,
    /// ‖pᵢ‖ divided by the table's norm; tokens of the vocabulary have about 1.
    pub relative_norm: f64,
    /// Tokens of the vocabulary with the largest cosine, in descending order. They do not explain the prompt: rows trained
    /// with cross-entropy leave the vocabulary's scale, and an equally good one can be found near any text.
    pub nearest: Vec<NearToken>,
    /// The drift from the init, if the init is known.
    pub drift: Option<Drift>,
    /// Cosine to the first token of each label, by label index; empty without labels.
    pub labels: Vec<f64>,
}

/// A token near a row.
#[derive(Clone, Debug, PartialEq)]
pub struct NearToken {
    /// Its id.
    pub token: Token,
    /// Its text.
    pub text: String,
    /// Cosine between its embedding and the row.
    pub cosine: f64,
}

/// The drift of a row from its init.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// ‖pᵢ − p₀ᵢ‖.
    pub distance: f64,
    /// Cosine between pᵢ and p₀ᵢ.
    pub cosine: f64,
    /// Whether the nearest token is that of the init.
    pub nearest_is_init: bool,
}

/// Inspects `soft`, which must have the model's width. `init`: its initial value, if known and of the same shape. Lists the
/// `top` nearest tokens of each row. The table is read once, row by row.
#[must_use]
pub fn inspect<B: Backend>(
    model: &Model<B>,
    soft: &SoftPrompt,
    init: Option<&SoftPrompt>,
    labels: Option<&Verbalizer>,
    top: usize,
) -> Inspection {
    let p: Vec<&[f32]> = soft.values().chunks_exact(soft.width()).collect();
    let norms: Vec<f64> = p.iter().map(|row| norm(row)).collect();
    let neighbourhood = Neighbourhood::of(model, &p, &norms, top);
    let label_rows = label_rows(model, labels);
    let init = init.filter(|init| (init.n_virtual(), init.width()) == (soft.n_virtual(), soft.width()));
    let table_norm = neighbourhood.table_norm;
    let is =
        |near: Option<&NearToken>, row: &[f32]| near.is_some_and(|near| embedding(model, near.token) == row);
    let rows = neighbourhood.nearest.into_iter().enumerate().map(|(i, nearest)| InspectedRow {
        drift: init.and_then(|init| init.row(i)).map(|began| Drift {
            distance: distance(p[i], began),
            cosine: cosine(dot(p[i], began), norms[i], norm(began)),
            nearest_is_init: is(nearest.first(), began),
        }),
        norm: norms[i],
        relative_norm: if table_norm > 0.0 { norms[i] / table_norm } else { 0.0 },
        nearest,
        labels: label_rows.iter().map(|row| cosine(dot(p[i], row), norms[i], norm(row))).collect(),
    });
    Inspection { table_norm, mean_cosine: mean_cosine(&p, &norms), rows: rows.collect() }
}

/// The result of one pass over the table.
struct Neighbourhood {
    table_norm: f64,
    /// Per row of p, in descending order of cosine.
    nearest: Vec<Vec<NearToken>>,
}

impl Neighbourhood {
    fn of<B: Backend>(model: &Model<B>, p: &[&[f32]], norms: &[f64], top: usize) -> Self {
        let table = model.backbone.embeddings();
        let mut embedding = vec![0.0; table.width()];
        let mut squares = 0.0;
        let mut nearest = vec![Vec::new(); p.len()];
        for v in 0..table.n() {
            table.read(v as Token, &mut embedding);
            let length = norm(&embedding);
            squares += length * length;
            if length == 0.0 {
                continue;
            }
            for ((row, &norm), nearest) in p.iter().zip(norms).zip(&mut nearest) {
                let cosine = cosine(dot(row, &embedding), norm, length);
                keep(nearest, (v as Token, cosine), top, |token| model.tokenizer.token(token));
            }
        }
        Self { table_norm: (squares / table.n().max(1) as f64).sqrt(), nearest }
    }
}

/// Inserts a token into the `top` nearest; on a tie, the earlier one stays first. Tables are padded to round sizes, so
/// tokens without text are skipped.
fn keep(
    nearest: &mut Vec<NearToken>,
    (token, cosine): (Token, f64),
    top: usize,
    text: impl FnOnce(Token) -> Option<String>,
) {
    let at = nearest.partition_point(|other| other.cosine >= cosine);
    if at < top
        && let Some(text) = text(token)
    {
        nearest.insert(at, NearToken { token, text, cosine });
        nearest.truncate(top);
    }
}

/// Embeddings of the labels' first tokens, by label index.
fn label_rows<B: Backend>(model: &Model<B>, labels: Option<&Verbalizer>) -> Vec<Vec<f32>> {
    let first = |i| labels.and_then(|labels| labels.tokens(i).first().copied());
    let n = labels.map_or(0, Verbalizer::n);
    (0..n).filter_map(first).map(|token| embedding(model, token)).collect()
}

/// E(token), `[H]`.
fn embedding<B: Backend>(model: &Model<B>, token: Token) -> Vec<f32> {
    let table = model.backbone.embeddings();
    let mut row = vec![0.0; table.width()];
    table.read(token, &mut row);
    row
}

fn mean_cosine(p: &[&[f32]], norms: &[f64]) -> Option<f64> {
    let mut total = 0.0;
    for i in 0..p.len() {
        for j in 0..i {
            total += cosine(dot(p[i], p[j]), norms[i], norms[j]);
        }
    }
    let n_pairs = p.len() * p.len().saturating_sub(1) / 2;
    (n_pairs > 0).then(|| total / n_pairs as f64)
}

/// The cosine of two rows, given their dot product and norms; 0 if one of them is zero.
fn cosine(dot: f64, a: f64, b: f64) -> f64 {
    if a > 0.0 && b > 0.0 { dot / (a * b) } else { 0.0 }
}

/// Euclidean norm.
fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

/// ‖a − b‖.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>().sqrt()
}

/// Σ aᵢ bᵢ.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] += f64::from(a[i]) * f64::from(b[i]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    lanes.iter().sum::<f64>() + rest
}
