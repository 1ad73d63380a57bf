//! The closed choices of a run, each with the names by which task files, command lines and passports know them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// A name that is not one of a choice's names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {setting} {value:?}, expected one of: {expected}")]
#[non_exhaustive]
pub struct UnknownName {
    /// What is being set.
    pub setting: &'static str,
    /// What was given.
    pub value: String,
    /// The names there are.
    pub expected: String,
}

/// A closed choice whose variants have kebab-case names: one table gives the names, parsing, printing and serde.
macro_rules! named_choice {
    ($(#[$doc:meta])* $name:ident, $setting:literal, { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every choice, in the order in which they are listed to people.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The choice's name in task files, on the command line and in prompt directories.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(value: &str) -> Result<Self, UnknownName> {
                Self::ALL.iter().copied().find(|choice| choice.as_str() == value).ok_or_else(|| {
                    UnknownName {
                        setting: $setting,
                        value: value.to_owned(),
                        expected: [$($text,)+].join(", "),
                    }
                })
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

named_choice!(
    /// What is learned: to choose a label, or to write a text.
    TaskKind, "kind", {
        /// A text gets one of a few labels.
        Classification = "classification",
        /// A text gets another text.
        Generation = "generation",
    }
);

named_choice!(
    /// What the loss of a label is.
    Objective, "objective", {
        /// Softmax over the candidates' log-likelihoods.
        Label = "label",
        /// Cross-entropy over the whole vocabulary, mean over the batch's label tokens.
        Lm = "lm",
    }
);

named_choice!(
    /// Where the soft prompt stands.
    Placement, "placement", {
        /// `[soft][BOS][text]`, the layout of PEFT.
        Front = "front",
        /// `[BOS][soft][text]`.
        AfterBos = "after-bos",
        /// At the beginning of a chat's system message.
        System = "system",
        /// After the template's tail, right before the label.
        Suffix = "suffix",
    }
);

named_choice!(
    /// How a label or target is joined to the text before it.
    Joining, "joining", {
        /// Its tokens are those of the whole text, split behind the text before it; a label that another one continues ends
        /// where it ends.
        Whole = "whole",
        /// It is tokenised on its own, as earlier versions did.
        Apart = "apart",
    }
);

named_choice!(
    /// What is learned in front of a frozen model.
    Method, "method", {
        /// Rows of its input (Lester et al. 2021).
        Prompt = "prompt",
        /// Keys and values of every layer (Li & Liang 2021), without a network that makes them.
        Prefix = "prefix",
    }
);

named_choice!(
    /// How the learning rate goes after the warm-up.
    Schedule, "schedule", {
        /// It stays.
        Constant = "constant",
        /// It falls along a line.
        Linear = "linear",
        /// It falls along half a cosine.
        Cosine = "cosine",
    }
);

named_choice!(
    /// Which soft prompt of a run is written.
    Keep, "keep", {
        /// The one with the best evaluation on dev.
        Best = "best",
        /// The last one.
        Last = "last",
    }
);

named_choice!(
    /// How the probabilities of labels are corrected.
    CalibrationMethod, "calibration", {
        /// All log-likelihoods are divided by one number, fitted on labelled examples (Guo et al. 2017).
        Temperature = "temperature",
        /// What the labels have for texts without content is divided out (Zhao et al. 2021).
        ContentFree = "content-free",
        /// The labels' mean log-likelihoods over a batch of texts are taken off (Zhou et al. 2023).
        Batch = "batch",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for &placement in Placement::ALL {
            assert_eq!(placement.to_string().parse(), Ok(placement));
            assert_eq!(serde_json::to_value(placement).unwrap(), placement.as_str());
            assert_eq!(serde_json::from_value::<Placement>(placement.as_str().into()).unwrap(), placement);
        }
        let message = "middle".parse::<Placement>().unwrap_err().to_string();
        assert_eq!(
            message,
            "unknown placement \"middle\", expected one of: front, after-bos, system, suffix"
        );
        assert_eq!(serde_json::from_str::<Placement>("\"middle\"").unwrap_err().to_string(), message);
    }
}
