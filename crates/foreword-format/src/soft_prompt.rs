//! The learned rows: a [P, W] matrix of finite f32 numbers, the only thing that training produces.

use crate::error::{FormatError, Origin};

/// The learned numbers, `[P, W]` row by row: never empty, all finite. W is the model's hidden size H for a soft prompt, and
/// L·2·K·D for a KV prefix: layer by layer the keys of all heads, then the values.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftPrompt {
    values: Vec<f32>,
    n_virtual: usize,
    width: usize,
}

impl SoftPrompt {
    /// Takes `values` `[P, W]` row by row, with P = `n_virtual` and W = `width`.
    ///
    /// # Errors
    /// If P or W is zero, if there are not P × W values, and if one is NaN or infinite (with its row and column).
    pub fn new(values: Vec<f32>, n_virtual: usize, width: usize) -> Result<Self, FormatError> {
        Self::from_origin(values, n_virtual, width, &Origin::Memory)
    }

    /// As [`SoftPrompt::new`], for values from `origin`.
    pub(crate) fn from_origin(
        values: Vec<f32>,
        n_virtual: usize,
        width: usize,
        origin: &Origin,
    ) -> Result<Self, FormatError> {
        if n_virtual == 0 || width == 0 {
            return Err(FormatError::Empty { origin: origin.clone(), n_virtual, width });
        }
        if n_virtual.checked_mul(width) != Some(values.len()) {
            let values = values.len();
            return Err(FormatError::ValueCount { origin: origin.clone(), values, n_virtual, width });
        }
        if let Some((idx, &value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            let (row, column) = (idx / width, idx % width);
            return Err(FormatError::NotFinite { origin: origin.clone(), row, column, value });
        }
        Ok(Self { values, n_virtual, width })
    }

    /// All values, `[P, W]` row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The number of virtual tokens, P.
    pub fn n_virtual(&self) -> usize {
        self.n_virtual
    }

    /// The numbers per row, W.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `row_idx`, `[W]`, or `None` if there is no such row.
    pub fn row(&self, row_idx: usize) -> Option<&[f32]> {
        self.values.chunks_exact(self.width).nth(row_idx)
    }

    /// The values, `[P, W]`, without the shape.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_from_the_values_in_order() {
        let rows = SoftPrompt::new(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3).unwrap();
        assert_eq!(rows.row(0), Some(&[1.0, 2.0, 3.0][..]));
        assert_eq!(rows.row(1), Some(&[4.0, 5.0, 6.0][..]));
        assert_eq!(rows.row(2), None);
        assert_eq!(rows.row(usize::MAX), None);
        assert_eq!((rows.n_virtual(), rows.width()), (2, 3));
        assert_eq!(rows.into_values(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn a_value_that_is_not_finite_is_refused_with_its_position() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![0.25; 12];
            values[7] = bad;
            let error = SoftPrompt::new(values, 4, 3).unwrap_err();
            assert!(matches!(error, FormatError::NotFinite { row: 2, column: 1, .. }), "{error}");
        }
    }

    #[test]
    fn sizes_must_be_positive_and_fit() {
        assert!(matches!(SoftPrompt::new(vec![], 0, 3), Err(FormatError::Empty { .. })));
        assert!(matches!(SoftPrompt::new(vec![], 3, 0), Err(FormatError::Empty { .. })));
        assert!(matches!(
            SoftPrompt::new(vec![0.0; 5], 2, 3),
            Err(FormatError::ValueCount { values: 5, .. })
        ));
        assert!(matches!(SoftPrompt::new(vec![], usize::MAX, 2), Err(FormatError::ValueCount { .. })));
    }
}
