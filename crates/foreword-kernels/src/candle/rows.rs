//! Blocks of rows on a device, and operations that move and add them.

use candle_core::{Device, Result, Tensor};

use super::Candle;
use crate::rows::RowBlock;

/// A block of rows `[N, W]` in single precision. Tensors are immutable: an operation in place replaces them.
#[derive(Clone, Debug)]
pub struct DeviceRows {
    /// `[N, W]`, contiguous; `None` if there are no rows, which devices don't support.
    tensor: Option<Tensor>,
    width: usize,
}

impl RowBlock for DeviceRows {
    fn n_rows(&self) -> usize {
        self.tensor.as_ref().map_or(0, |tensor| tensor.dims()[0])
    }
    fn width(&self) -> usize {
        self.width
    }
}

impl DeviceRows {
    /// From a tensor `[N, W]`, N not being 0.
    pub(super) fn new(tensor: Option<Tensor>, width: usize) -> Self {
        Self { tensor, width }
    }

    /// From a tensor `[N, W]`.
    pub(super) fn of(tensor: Tensor) -> Result<Self> {
        let (_, width) = tensor.dims2()?;
        let tensor = if tensor.is_contiguous() { tensor } else { tensor.contiguous()? };
        Ok(Self { tensor: Some(tensor), width })
    }

    /// From host values.
    pub(super) fn from_values(values: Vec<f32>, width: usize, device: &Device) -> Result<Self> {
        assert!(width > 0 && values.len().is_multiple_of(width), "{} values, width {width}", values.len());
        if values.is_empty() {
            return Ok(Self::new(None, width));
        }
        Self::of(Tensor::from_vec(values, ((), width), device)?)
    }

    /// The rows, if there are any.
    pub(super) fn tensor(&self) -> Option<&Tensor> {
        self.tensor.as_ref()
    }

    /// Back to the host.
    pub(super) fn values(&self) -> Result<Vec<f32>> {
        self.tensor.as_ref().map_or(Ok(Vec::new()), |tensor| tensor.flatten_all()?.to_vec1())
    }

    /// Adds a tensor of the same shape; `None`: of no rows.
    pub(super) fn add(&mut self, x: Option<&Tensor>) -> Result<()> {
        assert_eq!(self.n_rows(), x.map_or(0, |x| x.dims()[0]), "added rows differ in number");
        if let (Some(tensor), Some(x)) = (&mut self.tensor, x) {
            *tensor = tensor.add(x)?;
        }
        Ok(())
    }
}

impl Candle {
    pub(super) fn selected(&self, x: &DeviceRows, indices: &[usize]) -> Result<DeviceRows> {
        assert!(indices.iter().all(|&i| i < x.n_rows()), "a selected row does not exist");
        match x.tensor() {
            Some(tensor) if !indices.is_empty() => {
                DeviceRows::of(tensor.index_select(&self.indices(indices.iter().copied())?, 0)?)
            }
            _ => Ok(DeviceRows::new(None, x.width())),
        }
    }

    /// Selects from the rows of both: devices write a tensor's rows in no defined order.
    pub(super) fn assigned(
        &self,
        into: &mut DeviceRows,
        indices: &[usize],
        source: &DeviceRows,
    ) -> Result<()> {
        check_moved(into, indices, source);
        if let (Some(tensor), Some(source)) = (&mut into.tensor, source.tensor()) {
            let n = tensor.dims()[0];
            let mut from: Vec<usize> = (0..n).collect();
            for (j, &i) in indices.iter().enumerate() {
                from[i] = n + j;
            }
            *tensor = Tensor::cat(&[&*tensor, source], 0)?.index_select(&self.indices(from)?, 0)?;
        }
        Ok(())
    }

    pub(super) fn scattered(
        &self,
        into: &mut DeviceRows,
        indices: &[usize],
        source: &DeviceRows,
    ) -> Result<()> {
        check_moved(into, indices, source);
        if let (Some(tensor), Some(source)) = (&mut into.tensor, source.tensor()) {
            *tensor = tensor.index_add(&self.indices(indices.iter().copied())?, source, 0)?;
        }
        Ok(())
    }
}

fn check_moved(into: &DeviceRows, indices: &[usize], source: &DeviceRows) {
    assert_eq!(
        (indices.len(), into.width()),
        (source.n_rows(), source.width()),
        "moved rows differ in shape"
    );
    assert!(indices.iter().all(|&i| i < into.n_rows()), "a target row does not exist");
}
