//! The closed choices of a run, each with its names in task files, on command lines and in passports.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// An unknown name of a choice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {setting} {value:?}, expected one of: {expected}")]
#[non_exhaustive]
pub struct UnknownName {
    /// The setting.
    pub setting: &'static str,
    /// The given value.
    pub value: String,
    /// The valid names.
    pub expected: String,
}

/// A closed choice whose variants have kebab-case names: one table defines the names, parsing, printing and serde.
macro_rules! named_choice {
    ($(#[$doc:meta])* $name:ident, $setting:literal, { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every choice, in display order.
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
    /// The kind of task: classification or generation.
    TaskKind, "kind", {
        /// A text gets one of a few labels.
        Classification = "classification",
        /// A text gets an output text.
        Generation = "generation",
    }
);

named_choice!(
    /// The loss of a label.
    Objective, "objective", {
        /// Cross-entropy over the labels: softmax over the candidates' log-likelihoods.
        Label = "label",
        /// Cross-entropy over the whole vocabulary, mean over the batch's label tokens.
        Lm = "lm",
    }
);

named_choice!(
    /// The position of the soft prompt.
    Placement, "placement", {
        /// `[soft][BOS][text]`, the layout of PEFT.
        Front = "front",
        /// `[BOS][soft][text]`.
        AfterBos = "after-bos",
        /// At the beginning of a chat's system message.
        System = "system",
        /// After the end of the template, directly before the label.
        Suffix = "suffix",
    }
);

named_choice!(
    /// How a label or target is joined to the text before it.
    Joining, "joining", {
        /// Its tokens are those of the whole text, split after the text before it; a label that another one continues ends
        /// where it ends.
        Whole = "whole",
        /// It is tokenised on its own, as earlier versions did.
        Apart = "apart",
    }
);

named_choice!(
    /// What is learned for a frozen model.
    Method, "method", {
        /// Rows of its input (Lester et al. 2021).
        Prompt = "prompt",
        /// Keys and values of every layer (Li & Liang 2021), without a network that generates them.
        Prefix = "prefix",
    }
);

named_choice!(
    /// The learning-rate schedule after the warm-up.
    Schedule, "schedule", {
        /// Constant.
        Constant = "constant",
        /// Linear decay.
        Linear = "linear",
        /// Cosine decay.
        Cosine = "cosine",
    }
);

named_choice!(
    /// The soft prompt of a run to keep.
    Keep, "keep", {
        /// The one with the best evaluation on dev.
        Best = "best",
        /// The last one.
        Last = "last",
    }
);

named_choice!(
    /// What makes an evaluation on dev better than another.
    KeepBy, "keep-by", {
        /// A lower loss.
        Loss = "loss",
        /// A higher accuracy; on a tie, a lower loss.
        Accuracy = "accuracy",
        /// A higher macro F1; on a tie, a lower loss.
        MacroF1 = "macro-f1",
    }
);

named_choice!(
    /// The weights of the labels in the training loss.
    ClassWeights, "class weights", {
        /// Every example counts the same.
        None = "none",
        /// Every label counts the same in total: an example of a label with n of N examples, among K labels, has the weight
        /// N / (K · n).
        Balanced = "balanced",
    }
);

named_choice!(
    /// The calibration of label probabilities.
    CalibrationMethod, "calibration", {
        /// Divides all log-likelihoods by one number, fitted on labelled examples (Guo et al. 2017).
        Temperature = "temperature",
        /// Divides out the label probabilities on content-free inputs (Zhao et al. 2021).
        ContentFree = "content-free",
        /// Subtracts the labels' mean log-likelihoods over a batch of texts (Zhou et al. 2023).
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
