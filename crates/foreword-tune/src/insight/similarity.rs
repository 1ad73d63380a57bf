//! The similarity of two soft prompts for the same model, which indicates the similarity of their tasks (Vu et al. 2022,
//! SPoT).

use foreword_format::SoftPrompt;

/// The similarity of two prompts; 1 is the same direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Cosine of the two mean rows, which SPoT calls cosine similarity of average tokens.
    pub pooled: f64,
    /// Mean cosine of each row and its nearest row in the other prompt, in both directions, regardless of the order of the
    /// rows.
    pub matched: f64,
}

/// Compares two prompts with any numbers of rows. `None` if their widths differ.
#[must_use]
pub fn similarity(one: &SoftPrompt, other: &SoftPrompt) -> Option<Similarity> {
    let (a, b) = (rows(one), rows(other));
    if a[0].len() != b[0].len() {
        return None;
    }
    let matched = f64::midpoint(nearest(&a, &b), nearest(&b, &a));
    Some(Similarity { pooled: cosine(&mean(&a), &mean(&b)), matched })
}

fn rows(soft: &SoftPrompt) -> Vec<Vec<f64>> {
    let row = |i| soft.row(i).map(|row| row.iter().map(|&value| f64::from(value)).collect());
    (0..soft.n_virtual()).filter_map(row).collect()
}

/// The mean over `a` of the largest cosine with a row of `b`.
fn nearest(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let best = |row: &Vec<f64>| b.iter().map(|other| cosine(row, other)).fold(f64::NEG_INFINITY, f64::max);
    a.iter().map(best).sum::<f64>() / a.len() as f64
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    let n = rows.len() as f64;
    (0..rows[0].len()).map(|column| rows.iter().map(|row| row[column]).sum::<f64>() / n).collect()
}

/// 0 if one of them is zero.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { (dot(a, b) / lengths).clamp(-1.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(rows: &[[f32; 2]]) -> SoftPrompt {
        SoftPrompt::new(rows.concat(), rows.len(), 2).unwrap()
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn the_same_rows_in_any_order_and_length_are_the_same() {
        let one = prompt(&[[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]]);
        let other = prompt(&[[6.0, 2.0], [2.0, 0.0], [0.0, 4.0]]);
        let found = similarity(&one, &other).unwrap();
        assert!(near(found.pooled, 1.0) && near(found.matched, 1.0), "{found:?}");
    }

    #[test]
    fn means_and_matches_are_those_of_hand() {
        // Mean rows (1, 1) and (1, 0); nearest rows: 1 and 0 from the first, 1 from the second.
        let (one, other) = (prompt(&[[2.0, 0.0], [0.0, 2.0]]), prompt(&[[1.0, 0.0]]));
        let found = similarity(&one, &other).unwrap();
        assert!(near(found.pooled, 0.5_f64.sqrt()) && near(found.matched, 0.75), "{found:?}");
        let back = similarity(&other, &one).unwrap();
        assert!(near(back.pooled, found.pooled) && near(back.matched, found.matched));
        let opposite = similarity(&other, &prompt(&[[-1.0, 0.0]])).unwrap();
        assert_eq!((opposite.pooled, opposite.matched), (-1.0, -1.0));
        assert_eq!(
            similarity(&other, &prompt(&[[0.0, 0.0]])),
            Some(Similarity { pooled: 0.0, matched: 0.0 })
        );
    }

    #[test]
    fn other_widths_cannot_be_compared() {
        let wide = SoftPrompt::new(vec![1.0; 3], 1, 3).unwrap();
        assert_eq!(similarity(&wide, &prompt(&[[1.0, 0.0]])), None);
    }
}
