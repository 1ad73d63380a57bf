//! Blocks of activation rows in host memory, and their number types.

use std::fmt::Debug;

/// The number type of rows: `f32`, or `f64` for tests of exactness.
pub trait Element:
    num_traits::Float + num_traits::NumAssign + std::iter::Sum + Debug + Default + Send + Sync + 'static
{
    /// From single precision, exactly.
    fn of_f32(value: f32) -> Self;
    /// From double precision, rounded.
    fn of_f64(value: f64) -> Self;
    /// To single precision, rounded.
    fn as_f32(self) -> f32;
    /// To double precision, exactly.
    fn as_f64(self) -> f64;
}

impl Element for f32 {
    fn of_f32(value: f32) -> Self {
        value
    }
    fn of_f64(value: f64) -> Self {
        value as f32
    }
    fn as_f32(self) -> f32 {
        self
    }
    fn as_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Element for f64 {
    fn of_f32(value: f32) -> Self {
        f64::from(value)
    }
    fn of_f64(value: f64) -> Self {
        value
    }
    fn as_f32(self) -> f32 {
        self as f32
    }
    fn as_f64(self) -> f64 {
        self
    }
}

/// The shape of a backend's block of rows.
pub trait RowBlock: Clone + Send + Sync + 'static {
    /// N, the number of rows.
    fn n_rows(&self) -> usize;
    /// W, the numbers in each row.
    fn width(&self) -> usize;
}

/// A dense row-major block `[N, W]` in host memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows<T> {
    values: Vec<T>,
    n_rows: usize,
    width: usize,
}

impl<T: Element> Rows<T> {
    /// `[N, W]` from its values, N being `values.len() / width`.
    ///
    /// # Panics
    /// If `values` is not a whole number of rows.
    #[must_use]
    pub fn new(values: Vec<T>, width: usize) -> Self {
        assert!(width > 0, "rows need a width");
        assert_eq!(values.len() % width, 0, "{} values are not whole rows of {width}", values.len());
        Self { n_rows: values.len() / width, values, width }
    }

    /// `[N, W]` of zeros.
    #[must_use]
    pub fn zeros(n_rows: usize, width: usize) -> Self {
        Self { values: vec![T::zero(); n_rows * width], n_rows, width }
    }

    /// Row `i`, `[W]`.
    #[must_use]
    pub fn row(&self, i: usize) -> &[T] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    /// Row `i`, `[W]`, to write to.
    pub fn row_mut(&mut self, i: usize) -> &mut [T] {
        &mut self.values[i * self.width..(i + 1) * self.width]
    }

    /// All values, row after row.
    #[must_use]
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// All values, row after row, to write to.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// All values, row after row.
    #[must_use]
    pub fn into_values(self) -> Vec<T> {
        self.values
    }

    /// The rows at `indices`, `[indices.len(), W]`.
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        let mut values = Vec::with_capacity(indices.len() * self.width);
        for &i in indices {
            values.extend_from_slice(self.row(i));
        }
        Self { values, n_rows: indices.len(), width: self.width }
    }

    /// Writes row `j` of `source` to row `indices[j]`.
    pub fn assign(&mut self, indices: &[usize], source: &Self) {
        assert_eq!(
            (indices.len(), self.width),
            (source.n_rows, source.width),
            "assigned rows differ in shape"
        );
        for (j, &i) in indices.iter().enumerate() {
            self.row_mut(i).copy_from_slice(source.row(j));
        }
    }

    /// Adds row `j` of `source` to row `indices[j]`, in the order of `j`.
    pub fn scatter_add(&mut self, indices: &[usize], source: &Self) {
        assert_eq!(
            (indices.len(), self.width),
            (source.n_rows, source.width),
            "scattered rows differ in shape"
        );
        for (j, &i) in indices.iter().enumerate() {
            for (to, &from) in self.row_mut(i).iter_mut().zip(source.row(j)) {
                *to += from;
            }
        }
    }

    /// Adds `other` to every value.
    pub fn add(&mut self, other: &Self) {
        assert_eq!((self.n_rows, self.width), (other.n_rows, other.width), "added rows differ in shape");
        for (to, &from) in self.values.iter_mut().zip(&other.values) {
            *to += from;
        }
    }
}

impl<T: Element> RowBlock for Rows<T> {
    fn n_rows(&self) -> usize {
        self.n_rows
    }
    fn width(&self) -> usize {
        self.width
    }
}
