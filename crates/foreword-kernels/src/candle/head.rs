//! The output layer: single logits, and the log-sum-exp over the whole vocabulary, streamed.

use candle_core::{Result, Tensor};

use super::{Candle, DeviceRows};
use crate::backend::{HeadOf, Token};
use crate::rows::RowBlock;

type Head<'a> = HeadOf<'a, Candle>;

/// The derivative of the soft cap where its results are `logits`; `None`: there is no cap.
fn cap_derivative(logits: &Tensor, head: Head<'_>) -> Result<Option<Tensor>> {
    head.soft_cap.map(|cap| (logits / cap)?.sqr()?.affine(-1.0, 1.0)).transpose()
}

fn capped(logits: Tensor, head: Head<'_>) -> Result<Tensor> {
    match head.soft_cap {
        Some(cap) => (logits / cap)?.tanh()? * cap,
        None => Ok(logits),
    }
}

impl Candle {
    pub(super) fn logits_of(
        &self,
        x: &DeviceRows,
        head: Head<'_>,
        pairs: &[(usize, Token)],
    ) -> Result<Vec<f32>> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<usize> = pairs.iter().map(|&(row, _)| row).collect();
        let Some(x) = self.selected(x, &rows)?.tensor().cloned() else { return Ok(Vec::new()) };
        let tokens = pairs.iter().map(|&(_, token)| token);
        let products = x.mul(&head.weight.entries(self, tokens.clone())?)?.sum(1)?;
        let products = match head.bias {
            Some(bias) => {
                let indices = self.indices(tokens.map(|token| token as usize))?;
                products.add(&bias.flatten_all()?.index_select(&indices, 0)?)?
            }
            None => products,
        };
        capped(products, head)?.to_vec1()
    }

    pub(super) fn logits_at_back(
        &self,
        head: Head<'_>,
        pairs: &[(usize, Token)],
        (logits, d): (&[f32], &[f32]),
        dx: &mut DeviceRows,
    ) -> Result<()> {
        assert_eq!(pairs.len(), d.len(), "logits and their gradients differ in number");
        if pairs.is_empty() {
            return Ok(());
        }
        let rows: Vec<usize> = pairs.iter().map(|&(row, _)| row).collect();
        let entries = head.weight.entries(self, pairs.iter().map(|&(_, token)| token))?;
        let d = match cap_derivative(&self.column(logits)?, head)? {
            Some(derivative) => self.column(d)?.mul(&derivative)?,
            None => self.column(d)?,
        };
        let source = DeviceRows::of(entries.broadcast_mul(&d)?)?;
        self.scattered(dx, &rows, &source)
    }

    pub(super) fn log_sum_exp_back(
        &self,
        x: &DeviceRows,
        head: Head<'_>,
        (log_sums, d): (&[f32], &[f32]),
        dx: &mut DeviceRows,
    ) -> Result<()> {
        let Some(x) = x.tensor() else { return Ok(()) };
        let (log_sums, d) = (self.column(log_sums)?, self.column(d)?);
        let mut first = 0;
        for piece in head.weight.pieces(self.entries_per_piece(x, head)) {
            let piece = piece?;
            let logits = piece_logits(x, head, &piece, first)?;
            first += piece.dims()[0];
            let mut d_logits = logits.broadcast_sub(&log_sums)?.exp()?.broadcast_mul(&d)?;
            if let Some(derivative) = cap_derivative(&logits, head)? {
                d_logits = d_logits.mul(&derivative)?;
            }
            dx.add(Some(&d_logits.matmul(&piece)?))?;
        }
        Ok(())
    }

    /// `[n, 1]`.
    fn column(&self, values: &[f32]) -> Result<Tensor> {
        Tensor::from_slice(values, (values.len(), 1), &self.device)
    }

    /// For each piece of the vocabulary the maximum and the sum of exponentials relative to it, merged with those before.
    pub(super) fn log_sum_exps(&self, x: &DeviceRows, head: Head<'_>) -> Result<Vec<f32>> {
        assert!(head.weight.n_rows() > 0 || x.n_rows() == 0, "an empty vocabulary");
        let Some(x) = x.tensor() else { return Ok(Vec::new()) };
        let mut merged: Option<(Tensor, Tensor)> = None;
        let mut first = 0;
        for piece in head.weight.pieces(self.entries_per_piece(x, head)) {
            let piece = piece?;
            let logits = piece_logits(x, head, &piece, first)?;
            first += piece.dims()[0];
            let max = logits.max_keepdim(1)?;
            merged = Some(match merged {
                None => {
                    let sum = logits.broadcast_sub(&max)?.exp()?.sum_keepdim(1)?;
                    (max, sum)
                }
                Some((before, sum)) => {
                    let max = before.maximum(&max)?;
                    let sum = sum.mul(&before.sub(&max)?.exp()?)?;
                    let more = logits.broadcast_sub(&max)?.exp()?.sum_keepdim(1)?;
                    (max, sum.add(&more)?)
                }
            });
        }
        match merged {
            Some((max, sum)) => max.add(&sum.log()?)?.flatten_all()?.to_vec1(),
            None => Ok(Vec::new()),
        }
    }

    /// Entries whose logits exist at the same time.
    fn entries_per_piece(&self, x: &Tensor, head: Head<'_>) -> usize {
        self.piece(head.weight).min((self.scratch_limit / x.dims()[0]).max(1))
    }
}

/// Logits of rows for the entries in `piece`, which begin at `first`.
fn piece_logits(x: &Tensor, head: Head<'_>, piece: &Tensor, first: usize) -> Result<Tensor> {
    let products = x.matmul(&piece.t()?)?;
    let products = match head.bias {
        Some(bias) => products.broadcast_add(&bias.narrow(1, first, piece.dims()[0])?)?,
        None => products,
    };
    capped(products, head)
}
