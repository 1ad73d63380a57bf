//! The settings of a run: the choices of a task file and of the command line, each with its names.

#[cfg(feature = "clap")]
pub mod flags;
pub mod task_file;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub use foreword_format::{
    CalibrationMethod, ClassWeights, Joining, Keep, KeepBy, Method, Objective, Placement, Schedule, TaskKind,
};

/// Default placement: the one that PEFT supports.
pub const DEFAULT_PLACEMENT: Placement = Placement::Front;
/// Default method.
pub const DEFAULT_METHOD: Method = Method::Prompt;
/// Default loss of a label: the cross-entropy over the labels, which matches the task.
pub const DEFAULT_OBJECTIVE: Objective = Objective::Label;
/// Default number of rows of a soft prompt: beyond 20 to 50, more rows stop helping (Lester et al. 2021).
pub const DEFAULT_VIRTUAL_TOKENS: usize = 20;
/// Default maximum number of tokens of template, text and label or target.
pub const DEFAULT_MAX_LENGTH: usize = 512;
/// Default number of tokens computed at a time: enough rows to keep the matrix products busy, few enough to keep the
/// activations of one micro-batch small.
pub const DEFAULT_MICRO_BATCH_TOKENS: usize = 2048;
/// Default number of updates at most, if a run lasts until dev stops improving.
pub const DEFAULT_MAX_STEPS: u64 = 2000;
/// Default number of updates where dev can't decide: there are no dev examples, or several candidates.
pub const DEFAULT_STEPS: u64 = 400;
/// Default batch size, if there are enough examples.
pub const DEFAULT_BATCH_SIZE: usize = 32;

/// An invalid setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// The learning rate is neither "auto" nor a positive number.
    #[error("the learning rate {value:?} is neither \"auto\" nor a number above 0, nor a share like 3%")]
    LearningRate {
        /// The given value.
        value: String,
    },
    /// The warm-up is neither a number of steps nor a share.
    #[error("the warm-up {value:?} is neither a whole number of steps nor a share of them from 0 to below 1")]
    Warmup {
        /// The given value.
        value: String,
    },
    /// Not a size in bytes.
    #[error("the size {value:?} is not a number of bytes like 500MB, 2GB or 1.5GiB")]
    Size {
        /// The given value.
        value: String,
    },
    /// Not a number of candidates.
    #[error("the candidates {value:?} are neither \"auto\" nor a whole number from 1 to {most}")]
    Candidates {
        /// The given value.
        value: String,
        /// The maximum.
        most: usize,
    },
    /// Not a form of init.
    #[error(
        "unknown init {value:?}, expected text:SOME TEXT, labels, vocab, random, demonstrations or from:DIR"
    )]
    Init {
        /// The given value.
        value: String,
    },
    /// An init without a value after its colon.
    #[error("the init {form:?} needs {missing} after the colon")]
    InitEmpty {
        /// `text:` or `from:`.
        form: &'static str,
        /// The missing value.
        missing: &'static str,
    },
}

/// The learning rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LearningRate {
    /// A share of the scale of the learned rows that fits most models.
    Auto,
    /// This share, above 0, of the scale of the learned rows.
    Share(f64),
    /// This value, above 0, per coordinate as in PEFT.
    Value(f64),
}

impl LearningRate {
    fn from_number(value: f64) -> Result<Self, SettingError> {
        if value.is_finite() && value > 0.0 {
            Ok(Self::Value(value))
        } else {
            Err(SettingError::LearningRate { value: value.to_string() })
        }
    }
}

impl FromStr for LearningRate {
    type Err = SettingError;

    fn from_str(value: &str) -> Result<Self, SettingError> {
        let unknown = || SettingError::LearningRate { value: value.to_owned() };
        match value {
            "auto" => Ok(Self::Auto),
            share if share.ends_with('%') => {
                let percent: f64 = share.trim_end_matches('%').trim_end().parse().map_err(|_| unknown())?;
                match percent.is_finite() && percent > 0.0 {
                    true => Ok(Self::Share(percent / 100.0)),
                    false => Err(unknown()),
                }
            }
            number => Self::from_number(number.parse().map_err(|_| unknown())?).map_err(|_| unknown()),
        }
    }
}

impl fmt::Display for LearningRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Share(share) => write!(f, "{}%", 100.0 * share),
            Self::Value(value) => write!(f, "{value}"),
        }
    }
}

impl<'de> Deserialize<'de> for LearningRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParsedOrNumber {
            expected: "\"auto\", a number above 0, or a share like \"3%\"",
            from_number: Self::from_number,
        })
    }
}

/// The length of the warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warmup {
    /// This many steps.
    Steps(u64),
    /// This share of the run's steps, above 0 and below 1.
    Share(f64),
}

impl Warmup {
    /// Its number of steps in a run of so many.
    #[must_use]
    pub fn steps(self, of: u64) -> u64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Share(share) => (share * of as f64).ceil() as u64,
        }
    }

    fn from_number(value: f64) -> Result<Self, SettingError> {
        // Whole numbers up to 2^53 are exact in an f64; no run has more steps.
        const MOST_STEPS: f64 = (1_u64 << 53) as f64;
        if value > 0.0 && value < 1.0 {
            Ok(Self::Share(value))
        } else if value.fract() == 0.0 && (0.0..=MOST_STEPS).contains(&value) {
            Ok(Self::Steps(value as u64))
        } else {
            Err(SettingError::Warmup { value: value.to_string() })
        }
    }
}

impl FromStr for Warmup {
    type Err = SettingError;

    fn from_str(value: &str) -> Result<Self, SettingError> {
        let unknown = || SettingError::Warmup { value: value.to_owned() };
        Self::from_number(value.parse().map_err(|_| unknown())?).map_err(|_| unknown())
    }
}

impl fmt::Display for Warmup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) => write!(f, "{steps}"),
            Self::Share(share) => write!(f, "{share}"),
        }
    }
}

impl<'de> Deserialize<'de> for Warmup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParsedOrNumber {
            expected: "a number of steps, or a share of them below 1",
            from_number: Self::from_number,
        })
    }
}

/// A number of bytes, written with its unit: `500MB`, `1.5GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = SettingError;

    fn from_str(value: &str) -> Result<Self, SettingError> {
        let unknown = || SettingError::Size { value: value.to_owned() };
        let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match value[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "k" | "kb" => 1e3,
            "m" | "mb" => 1e6,
            "g" | "gb" => 1e9,
            "t" | "tb" => 1e12,
            "kib" => 1024.0,
            "mib" => 1_048_576.0,
            "gib" => 1_073_741_824.0,
            "tib" => 1_099_511_627_776.0,
            _ => return Err(unknown()),
        };
        let bytes = digits.trim_end().parse::<f64>().map_err(|_| unknown())? * unit;
        // Whole numbers up to 2^53 are exact in an f64; no machine has more bytes.
        if (1.0..=(1_u64 << 53) as f64).contains(&bytes) { Ok(Self(bytes as u64)) } else { Err(unknown()) }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Number of candidates to train at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateCount {
    /// As many as there are sensible settings.
    Auto,
    /// This many, at least 1.
    Of(usize),
}

impl CandidateCount {
    /// The number for `auto`: one round of variations, without lengths.
    pub const AUTO: usize = 8;
    /// Maximum number: more add hardly anything, and each takes its share of memory.
    pub const MOST: usize = 256;

    /// The number.
    #[must_use]
    pub fn n(self) -> usize {
        match self {
            Self::Auto => Self::AUTO,
            Self::Of(n) => n,
        }
    }

    fn from_number(value: f64) -> Result<Self, SettingError> {
        let most = Self::MOST;
        if value.fract() == 0.0 && (1.0..=most as f64).contains(&value) {
            Ok(Self::Of(value as usize))
        } else {
            Err(SettingError::Candidates { value: value.to_string(), most })
        }
    }
}

impl FromStr for CandidateCount {
    type Err = SettingError;

    fn from_str(value: &str) -> Result<Self, SettingError> {
        let unknown = || SettingError::Candidates { value: value.to_owned(), most: Self::MOST };
        match value {
            "auto" => Ok(Self::Auto),
            number => Self::from_number(number.parse().map_err(|_| unknown())?).map_err(|_| unknown()),
        }
    }
}

impl<'de> Deserialize<'de> for CandidateCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParsedOrNumber {
            expected: "\"auto\" or a number of candidates",
            from_number: Self::from_number,
        })
    }
}

/// The initial rows of the soft prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// The embeddings of this text's tokens.
    Text(String),
    /// The embeddings of the labels' tokens.
    Labels,
    /// The embeddings of tokens sampled from the vocabulary.
    Vocab,
    /// Random rows with the scale of the embedding table.
    Random,
    /// Training examples with their labels.
    Demonstrations,
    /// The rows of another prompt directory.
    From(PathBuf),
}

impl FromStr for Init {
    type Err = SettingError;

    fn from_str(value: &str) -> Result<Self, SettingError> {
        match (value, value.split_once(':')) {
            ("labels", _) => Ok(Self::Labels),
            ("vocab", _) => Ok(Self::Vocab),
            ("random", _) => Ok(Self::Random),
            ("demonstrations", _) => Ok(Self::Demonstrations),
            (_, Some(("text", text))) if text.trim().is_empty() => {
                Err(SettingError::InitEmpty { form: "text:", missing: "the text to begin from" })
            }
            (_, Some(("text", text))) => Ok(Self::Text(text.to_owned())),
            (_, Some(("from", ""))) => {
                Err(SettingError::InitEmpty { form: "from:", missing: "the prompt directory to begin from" })
            }
            (_, Some(("from", path))) => Ok(Self::From(PathBuf::from(path))),
            _ => Err(SettingError::Init { value: value.to_owned() }),
        }
    }
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "text:{text}"),
            Self::Labels => f.pad("labels"),
            Self::Vocab => f.pad("vocab"),
            Self::Random => f.pad("random"),
            Self::Demonstrations => f.pad("demonstrations"),
            Self::From(path) => write!(f, "from:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Init {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Parses a string through `FromStr`, or a number.
struct ParsedOrNumber<T> {
    expected: &'static str,
    from_number: fn(f64) -> Result<T, SettingError>,
}

impl<T: FromStr<Err = SettingError>> Visitor<'_> for ParsedOrNumber<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
        value.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
        (self.from_number)(value).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rates_are_auto_or_above_zero() {
        assert_eq!("auto".parse(), Ok(LearningRate::Auto));
        assert_eq!("3e-2".parse(), Ok(LearningRate::Value(0.03)));
        for wrong in ["0", "-1", "nan", "inf", "fast", ""] {
            let message = wrong.parse::<LearningRate>().unwrap_err().to_string();
            assert!(message.contains(&format!("{wrong:?}")), "{message}");
        }
    }

    #[test]
    fn a_warmup_below_one_is_a_share() {
        assert_eq!("0".parse(), Ok(Warmup::Steps(0)));
        assert_eq!("0.05".parse(), Ok(Warmup::Share(0.05)));
        assert_eq!("1".parse(), Ok(Warmup::Steps(1)));
        assert_eq!("20".parse(), Ok(Warmup::Steps(20)));
        for wrong in ["1.5", "-1", "-0.5", "nan", "inf", "5%"] {
            assert!(wrong.parse::<Warmup>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units() {
        let sizes = ["2GB", "500 MB", "1.5GiB", "1024", "3k"].map(|size| size.parse::<Size>().unwrap().0);
        assert_eq!(sizes, [2_000_000_000, 500_000_000, 1_610_612_736, 1024, 3000]);
        for wrong in ["", "GB", "2XB", "-1GB", "0", "nan", "1e300GB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn inits_are_read_as_they_are_written() {
        for text in
            ["text:Classify: good or bad?", "labels", "vocab", "random", "demonstrations", "from:runs/a:b"]
        {
            assert_eq!(text.parse::<Init>().unwrap().to_string(), text);
        }
        for wrong in ["text:", "text: ", "from:", "words", "labels:", ""] {
            assert!(wrong.parse::<Init>().is_err(), "{wrong}");
        }
    }
}
