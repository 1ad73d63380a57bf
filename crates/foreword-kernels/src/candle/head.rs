//! The vocabulary at the end of a model: single logits, and the log-sum-exp over all of them, streamed.

use candle_core::{Result, Tensor};

use super::{Candle, DeviceMatrix, DeviceRows};
use crate::backend::Token;
use crate::rows::RowBlock;

impl Candle {
    pub(super) fn some_logits(
        &self,
        x: &DeviceRows,
        head: &DeviceMatrix,
        pairs: &[(usize, Token)],
    ) -> Result<Vec<f32>> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<usize> = pairs.iter().map(|&(row, _)| row).collect();
        let Some(x) = self.selected(x, &rows)?.tensor().cloned() else { return Ok(Vec::new()) };
        let entries = head.entries(self, pairs.iter().map(|&(_, token)| token))?;
        x.mul(&entries)?.sum(1)?.to_vec1()
    }

    pub(super) fn some_logits_gradient(
        &self,
        head: &DeviceMatrix,
        pairs: &[(usize, Token)],
        d: &[f32],
        dx: &mut DeviceRows,
    ) -> Result<()> {
        assert_eq!(pairs.len(), d.len(), "logits and their gradients differ in number");
        if pairs.is_empty() {
            return Ok(());
        }
        let rows: Vec<usize> = pairs.iter().map(|&(row, _)| row).collect();
        let entries = head.entries(self, pairs.iter().map(|&(_, token)| token))?;
        let source = DeviceRows::of(entries.broadcast_mul(&self.column(d)?)?)?;
        self.scattered(dx, &rows, &source)
    }

    pub(super) fn log_sum_exp_back(
        &self,
        x: &DeviceRows,
        head: &DeviceMatrix,
        (log_sums, d): (&[f32], &[f32]),
        dx: &mut DeviceRows,
    ) -> Result<()> {
        let Some(x) = x.tensor() else { return Ok(()) };
        let (log_sums, d) = (self.column(log_sums)?, self.column(d)?);
        for piece in head.pieces(self.entries_at_a_time(x, head)) {
            let piece = piece?;
            let probabilities = x.matmul(&piece.t()?)?.broadcast_sub(&log_sums)?.exp()?;
            dx.add(Some(&probabilities.broadcast_mul(&d)?.matmul(&piece)?))?;
        }
        Ok(())
    }

    /// `[n, 1]`.
    fn column(&self, values: &[f32]) -> Result<Tensor> {
        Tensor::from_slice(values, (values.len(), 1), &self.device)
    }

    /// Per piece of the vocabulary the maximum and the sum of exponentials below it, joined with those before it.
    pub(super) fn log_sum_exps(&self, x: &DeviceRows, head: &DeviceMatrix) -> Result<Vec<f32>> {
        assert!(head.n_rows() > 0 || x.n_rows() == 0, "a vocabulary of nothing");
        let Some(x) = x.tensor() else { return Ok(Vec::new()) };
        let mut so_far: Option<(Tensor, Tensor)> = None;
        for piece in head.pieces(self.entries_at_a_time(x, head)) {
            let logits = x.matmul(&piece?.t()?)?;
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
    fn entries_at_a_time(&self, x: &Tensor, head: &DeviceMatrix) -> usize {
        self.piece(head).min((self.room / x.dims()[0]).max(1))
    }
}
