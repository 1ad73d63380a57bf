//! Parsers of command-line values, for the settings tables that are also groups of flags.

use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};

/// One of a fixed set of choices, by name.
pub fn choice<T>(all: &'static [T], name: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync> + Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.iter().map(|&choice| name(choice))).try_map(|name| name.parse::<T>())
}

/// A whole number of at least 1.
#[must_use]
pub fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// A number of at least 0.
///
/// # Errors
/// If it is not one.
pub fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= 0.0 && value.is_finite() => Ok(value),
        _ => Err("must be 0 or greater".to_owned()),
    }
}

/// A number above 0.
///
/// # Errors
/// If it is not one.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("must be greater than 0".to_owned()),
    }
}

/// A number of at least 0 and below 1.
///
/// # Errors
/// If it is not one.
pub fn below_one(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        _ => Err("must be at least 0 and less than 1".to_owned()),
    }
}
