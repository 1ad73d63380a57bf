//! Files made by hand, whole and damaged.
