//! Calibration: corrections of label log-likelihoods, each fitted on scores.
//!
//! A model favours some labels before it has read any text, and is more confident than accurate. A [`Calibration`] corrects
//! the bias with one offset per label, and the confidence with a temperature.

use foreword_backbone::Model;
use foreword_backbone::kernels::Backend;
use foreword_format::{CalibrationMethod, CalibrationRecord};

use crate::data::Dataset;
use crate::encode::EncodeError;
use crate::likelihood::log_sum_exp;
use crate::likelihood::probabilities;
use crate::task::{Examples, Task, TaskError};
use crate::verbalizer::Verbalizer;

/// Content-free inputs (Zhao et al. 2021).
pub const CONTENT_FREE: [&str; 3] = ["N/A", "", "[MASK]"];
/// A batch with fewer texts says little about the labels' means.
pub const FEW_TEXTS: usize = 10;
/// The range of temperatures: if every example is correct, each lower one would be better still.
const TEMPERATURES: (f64, f64) = (0.05, 20.0);
/// Number of bisections of that range, down to the last bit.
const HALVINGS: usize = 80;

/// Why a calibration can't be fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// There are no examples.
    #[error("there are no texts to fit the calibration on")]
    NoTexts,
    /// The numbers of scores and of labels differ.
    #[error("a temperature is fitted on labelled examples, and {texts} texts have {labels} labels")]
    Labels {
        /// Number of texts.
        texts: usize,
        /// Number of labels.
        labels: usize,
    },
    /// A single text has nothing to be compared with.
    #[error("a batch of one text says nothing: taken off from itself, it leaves all labels equally likely")]
    OneText,
}

/// Maps a label's log-likelihood ℓ to (ℓ + offset) / temperature; the probabilities are the softmax of these.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// How it was fitted.
    pub method: CalibrationMethod,
    /// Above 0; values above 1 lower the confidence.
    pub temperature: f64,
    /// By label index; they sum to 0, since only their differences matter.
    pub offsets: Vec<f64>,
}

impl Calibration {
    /// The temperature with the lowest cross-entropy on labelled examples (Guo et al. 2017). It changes no prediction.
    /// `scores`: each example's log-likelihood by label.
    ///
    /// # Errors
    /// If there are no examples, or the numbers of scores and labels differ.
    pub fn temperature(scores: &[Vec<f64>], truths: &[usize]) -> Result<Self, CalibrationError> {
        if scores.len() != truths.len() {
            return Err(CalibrationError::Labels { texts: scores.len(), labels: truths.len() });
        }
        let offsets = vec![0.0; scores.first().ok_or(CalibrationError::NoTexts)?.len()];
        // The cross-entropy is convex in β = 1 / temperature, and this is its slope.
        let slope = |beta: f64| -> f64 {
            let one = |(scores, &truth): (&Vec<f64>, &usize)| {
                let p = probabilities(&scores.iter().map(|score| beta * score).collect::<Vec<_>>());
                p.iter().zip(scores).map(|(p, score)| p * score).sum::<f64>() - scores[truth]
            };
            scores.iter().zip(truths).map(one).sum()
        };
        let (mut low, mut high) = (TEMPERATURES.1.recip(), TEMPERATURES.0.recip());
        let flat = scores.iter().flatten().all(|&score| score == scores[0][0]);
        for _ in 0..HALVINGS {
            let middle = (low * high).sqrt();
            if slope(middle) > 0.0 { high = middle } else { low = middle }
        }
        let temperature = if flat { 1.0 } else { high.recip() };
        Ok(Self { method: CalibrationMethod::Temperature, temperature, offsets })
    }

    /// Divides out the labels' mean probabilities on content-free inputs (Zhao et al. 2021).
    ///
    /// # Errors
    /// If there are no texts.
    pub fn content_free(scores: &[Vec<f64>]) -> Result<Self, CalibrationError> {
        let each: Vec<Vec<f64>> = scores.iter().map(|scores| probabilities(scores)).collect();
        let offsets = mean(&each)?.into_iter().map(|p| -p.max(f64::MIN_POSITIVE).ln());
        Ok(Self::of_offsets(CalibrationMethod::ContentFree, offsets.collect()))
    }

    /// Subtracts the labels' mean log-likelihoods over a batch of texts, which needs no labels (Zhou et al. 2023).
    ///
    /// # Errors
    /// If there are fewer than two texts.
    pub fn batch(scores: &[Vec<f64>]) -> Result<Self, CalibrationError> {
        if scores.len() == 1 {
            return Err(CalibrationError::OneText);
        }
        // Normalised over the labels: texts that make all labels unlikely count as much as others.
        let among = |scores: &Vec<f64>| {
            let log_sum = log_sum_exp(scores);
            scores.iter().map(|score| score - log_sum).collect()
        };
        let each: Vec<Vec<f64>> = scores.iter().map(among).collect();
        let offsets = mean(&each)?.into_iter().map(|mean| -mean);
        Ok(Self::of_offsets(CalibrationMethod::Batch, offsets.collect()))
    }

    fn of_offsets(method: CalibrationMethod, offsets: Vec<f64>) -> Self {
        let mean = offsets.iter().sum::<f64>() / offsets.len().max(1) as f64;
        Self { method, temperature: 1.0, offsets: offsets.into_iter().map(|offset| offset - mean).collect() }
    }

    /// The calibration recorded in a passport, for labels with the same names.
    #[must_use]
    pub fn of_record(record: &CalibrationRecord, labels: &Verbalizer) -> Option<Self> {
        let offsets = labels.names().iter().map(|name| record.offsets.get(name).copied());
        let offsets = offsets.collect::<Option<Vec<f64>>>()?;
        let (method, temperature) = (record.method, record.temperature);
        (offsets.len() == record.offsets.len()).then_some(Self { method, temperature, offsets })
    }

    /// The record for a passport.
    #[must_use]
    pub fn record(&self, labels: &Verbalizer) -> CalibrationRecord {
        let offsets = labels.names().iter().cloned().zip(self.offsets.iter().copied());
        CalibrationRecord { method: self.method, temperature: self.temperature, offsets: offsets.collect() }
    }

    /// Applies it to the log-likelihoods of one example.
    #[must_use]
    pub fn apply(&self, scores: &[f64]) -> Vec<f64> {
        scores.iter().zip(&self.offsets).map(|(score, offset)| (score + offset) / self.temperature).collect()
    }
}

/// The mean by label.
fn mean(each: &[Vec<f64>]) -> Result<Vec<f64>, CalibrationError> {
    let mut sums = vec![0.0; each.first().ok_or(CalibrationError::NoTexts)?.len()];
    for one in each {
        sums.iter_mut().zip(one).for_each(|(sum, value)| *sum += value);
    }
    Ok(sums.into_iter().map(|sum: f64| sum / each.len() as f64).collect())
}

/// The content-free inputs in the template of a task, with each in all of its fields. Inputs without any token are skipped.
///
/// # Errors
/// If a text does not fit.
pub fn content_free_examples<B: Backend>(
    task: &Task,
    model: &Model<B>,
    n_virtual: usize,
) -> Result<Examples, TaskError> {
    let slots: Vec<String> = task.template.slots().map(str::to_owned).collect();
    let mut rows = Vec::new();
    for text in CONTENT_FREE {
        let tokens = model.tokenizer.encode_context(&task.template.render(|_| text));
        if !tokens.map_err(EncodeError::from)?.is_empty() {
            rows.push(vec![text.to_owned(); slots.len()]);
        }
    }
    let data = Dataset::from_rows(slots, rows)?;
    let task = Task { text_field: None, ..task.clone() };
    task.examples(model, n_virtual, &data, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Mean cross-entropy over the labels.
    fn cross_entropy(scores: &[Vec<f64>], truths: &[usize]) -> f64 {
        let one = |(scores, &truth): (&Vec<f64>, &usize)| log_sum_exp(scores) - scores[truth];
        scores.iter().zip(truths).map(one).sum::<f64>() / truths.len() as f64
    }

    fn applied(calibration: &Calibration, scores: &[Vec<f64>]) -> Vec<Vec<f64>> {
        scores.iter().map(|scores| calibration.apply(scores)).collect()
    }

    #[test]
    fn the_temperature_is_the_one_that_scipy_finds() {
        let scores =
            [[2.0, -1.0], [0.5, 1.5], [-3.0, 1.0], [1.0, 0.0], [4.0, -2.0], [0.2, 0.1]].map(Vec::from);
        let fitted = Calibration::temperature(&scores, &[0, 0, 1, 1, 0, 1]).unwrap();
        // scipy.optimize.minimize_scalar(nll, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-12})
        assert!((fitted.temperature - 1.990_264_735).abs() < 1e-6, "{}", fitted.temperature);
        let three = [[1.0, 0.0, -1.0], [0.0, 3.0, 0.5], [0.3, -0.2, 0.9], [2.5, 2.0, -4.0]].map(Vec::from);
        let fitted = Calibration::temperature(&three, &[0, 1, 0, 1]).unwrap();
        assert!((fitted.temperature - 0.864_866_840).abs() < 1e-6, "{}", fitted.temperature);
    }

    #[test]
    fn what_can_not_be_fitted_is_bounded_or_said() {
        let right = [vec![3.0, 0.0], vec![0.0, 3.0]];
        let temperature = |truths: &[usize]| Calibration::temperature(&right, truths).unwrap().temperature;
        assert!((temperature(&[0, 1]) - 0.05).abs() < 1e-9 && (temperature(&[1, 0]) - 20.0).abs() < 1e-9);
        let flat = [vec![1.0, 1.0]];
        assert_eq!(Calibration::temperature(&flat, &[0]).unwrap().temperature, 1.0);
        assert_eq!(Calibration::temperature(&[], &[]), Err(CalibrationError::NoTexts));
        let labels = CalibrationError::Labels { texts: 2, labels: 1 };
        assert_eq!(Calibration::temperature(&right, &[0]), Err(labels));
        assert_eq!(Calibration::content_free(&[]), Err(CalibrationError::NoTexts));
        assert_eq!(Calibration::batch(&[]), Err(CalibrationError::NoTexts));
        assert_eq!(Calibration::batch(&right[..1]), Err(CalibrationError::OneText));
        // A label with zero probability on content-free inputs is not divided by zero.
        let never = Calibration::content_free(&[vec![0.0, -2000.0]]).unwrap();
        assert!(never.offsets.iter().all(|offset| offset.is_finite()));
    }

    proptest! {
        #[test]
        fn no_other_temperature_is_better_and_no_answer_changes(
            scores in proptest::collection::vec(proptest::collection::vec(-5.0..5.0_f64, 3), 1..20),
            seed: u64, factor in 0.5..2.0_f64,
        ) {
            let truths: Vec<usize> = (0..scores.len()).map(|i| (seed.rotate_left(i as u32) % 3) as usize).collect();
            let fitted = Calibration::temperature(&scores, &truths).unwrap();
            let corrected = applied(&fitted, &scores);
            for (before, after) in scores.iter().zip(&corrected) {
                prop_assert_eq!(crate::likelihood::best(before), crate::likelihood::best(after));
            }
            let temperature = (fitted.temperature * factor).clamp(TEMPERATURES.0, TEMPERATURES.1);
            let other = Calibration { temperature, ..fitted };
            let other = cross_entropy(&applied(&other, &scores), &truths);
            prop_assert!(cross_entropy(&corrected, &truths) <= other + 1e-12);
        }

        #[test]
        fn texts_without_content_come_out_undecided_and_batches_have_equal_means(
            scores in proptest::collection::vec(proptest::collection::vec(-5.0..5.0_f64, 3), 2..20),
            constant in -100.0..100.0_f64,
        ) {
            // One content-free input, for which all labels are equally likely.
            let alone = Calibration::content_free(&scores[..1]).unwrap();
            for p in probabilities(&alone.apply(&scores[0])) {
                prop_assert!((p - 1.0 / 3.0).abs() < 1e-12);
            }
            let batch = Calibration::batch(&scores).unwrap();
            let means = mean(&applied(&batch, &scores)).unwrap();
            prop_assert!(means.iter().all(|m| (m - means[0]).abs() < 1e-9), "{means:?}");
            prop_assert!(batch.offsets.iter().sum::<f64>().abs() < 1e-9);
            // Scores up to a constant for each text are enough.
            let shift = |scores: &Vec<f64>| scores.iter().map(|score| score + constant).collect::<Vec<_>>();
            let shifted: Vec<Vec<f64>> = scores.iter().map(shift).collect();
            let other = Calibration::batch(&shifted).unwrap();
            prop_assert!(batch.offsets.iter().zip(&other.offsets).all(|(a, b)| (a - b).abs() < 1e-9));
        }
    }
}
