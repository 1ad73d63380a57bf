//! The vocabulary at the end of a model: single logits, and the log-sum-exp over all of them, streamed.

use candle_core::{Result, Tensor};

use super::{Candle, DeviceRows};
use crate::backend::{HeadOf, Token};
use crate::rows::RowBlock;

type Head<'a> = HeadOf<'a, Candle>;

/// The slope of the cap where it gave `logits`; `None`: there is no cap.
fn cap_slope(logits: &Tensor, head: Head<'_>) -> Result<Option<Tensor>> {
    head.soft_cap.map(|cap| (logits / cap)?.sqr()?.affine(-1.0, 1.0)).transpose()
}

fn capped(logits: Tensor, head: Head<'_>) -> Result<Tensor> {
    match head.soft_cap {
        Some(cap) => (logits / cap)?.tanh()? * cap,
        None => Ok(logits),
    }
}

impl Candle {
    pub(super) fn some_logits(
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

    pub(super) fn some_logits_gradient(
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
        let d = match cap_slope(&self.column(logits)?, head)? {
            Some(slope) => self.column(d)?.mul(&slope)?,
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
        for piece in head.weight.pieces(self.entries_at_a_time(x, head)) {
            let piece = piece?;
            let logits = piece_logits(x, head, &piece, first)?;
            first += piece.dims()[0];
            let mut d_logits = logits.broadcast_sub(&log_sums)?.exp()?.broadcast_mul(&d)?;
            if let Some(slope) = cap_slope(&logits, head)? {
                d_logits = d_logits.mul(&slope)?;
            }
            dx.add(Some(&d_logits.matmul(&piece)?))?;
        }
        Ok(())
    }

    /// `[n, 1]`.
    fn column(&self, values: &[f32]) -> Result<Tensor> {
        Tensor::from_slice(values, (values.len(), 1), &self.device)
    }

    /// Per piece of the vocabulary the maximum and the sum of exponentials below it, joined with those before it.
    pub(super) fn log_sum_exps(&self, x: &DeviceRows, head: Head<'_>) -> Result<Vec<f32>> {
        assert!(head.weight.n_rows() > 0 || x.n_rows() == 0, "a vocabulary of nothing");
        let Some(x) = x.tensor() else { return Ok(Vec::new()) };
        let mut so_far: Option<(Tensor, Tensor)> = None;
        let mut first = 0;
        for piece in head.weight.pieces(self.entries_at_a_time(x, head)) {
            let piece = piece?;
            let logits = piece_logits(x, head, &piece, first)?;
            first += piece.dims()[0];
            let max = logits.max_keepdim(1)?;
            so_far = Some(match so_far {
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
        match so_far {
            Some((max, sum)) => max.add(&sum.log()?)?.flatten_all()?.to_vec1(),
            None => Ok(Vec::new()),
        }
    }

    /// Entries whose logits exist at a time.
    fn entries_at_a_time(&self, x: &Tensor, head: Head<'_>) -> usize {
        self.piece(head.weight).min((self.room / x.dims()[0]).max(1))
    }
}

/// Logits of rows for the vocabulary's entries from `first` on that `piece` holds.
fn piece_logits(x: &Tensor, head: Head<'_>, piece: &Tensor, first: usize) -> Result<Tensor> {
    let products = x.matmul(&piece.t()?)?;
    let products = match head.bias {
        Some(bias) => products.broadcast_add(&bias.narrow(1, first, piece.dims()[0])?)?,
        None => products,
    };
    capped(products, head)
}
