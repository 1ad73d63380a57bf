//! Evaluates a prompt on examples with known labels or targets.

use super::LoadedPrompt;
use super::naming::Naming;
use crate::calibration::Calibration;
use crate::data::FieldIdx;
use crate::error::Result;
use crate::fields::{Fields, complete, tell_unused};
use crate::generate::{Event, GenerateConfig, Generated};
use crate::likelihood::probabilities;
use crate::metrics::reliability::Reliability;
use crate::metrics::scale::{Scale, ScaleErrors};
use crate::metrics::text::TextScores;
use crate::notice::Observer;
use crate::plan::splits::strata;
use crate::plan::{checks, data};
use crate::settings::Objective;
use crate::{Dataset, Evaluation, Examples, TaskFile};
use std::ops::ControlFlow;

/// Examples to evaluate on.
#[derive(Debug)]
pub struct TestSet {
    /// The data as read, with named labels.
    pub data: Dataset,
    /// The field with the label or target.
    pub truth: FieldIdx,
    /// The tokenised examples.
    pub examples: Examples,
}

/// The evaluation of predicted labels.
#[derive(Debug)]
pub struct LabelEvaluation {
    /// The loss and the confusion matrix.
    pub evaluation: Evaluation,
    /// The probabilities of each example's labels.
    pub probabilities: Vec<Vec<f64>>,
    /// The calibration quality of the probabilities.
    pub reliability: Reliability,
    /// For labels that look like a scale, the distance from the true values.
    pub scale: Option<(Scale, ScaleErrors)>,
}

impl LoadedPrompt {
    /// Finds the fields of a data set to evaluate on, names its labels, and samples `limit` examples with `seed`. The
    /// prompt then uses the text field found here.
    ///
    /// # Errors
    /// If a field is missing, or the task does not have a label.
    pub fn test_set(
        &mut self,
        data: Dataset,
        stated: &TaskFile,
        limit: Option<usize>,
        observer: &dyn Observer,
    ) -> Result<TestSet> {
        let task = &mut self.task;
        let truth = (task.goal.kind(), self.truth_field.as_deref());
        let fields = Fields::find(&data, &task.template, task.text_field.as_deref(), truth)?;
        if fields.guessed() {
            observer.tell("fields", fields.describe(&task.template));
        }
        task.text_field.clone_from(&fields.text);
        let data = complete(data, &task.template, &fields, stated, observer)?;
        let (data, named_by) = match task.verbalizer() {
            Some(labels) => {
                let (recorded, labels) = (Some(&self.label_names), Some(labels.names()));
                let naming = Naming { stated: stated.data.label_names.as_ref(), recorded, labels };
                let named = naming.apply(data, &fields.truth, observer)?;
                (named.dataset, named.field)
            }
            None => (data, None),
        };
        let beside = (Some(fields.truth.as_str()), named_by.as_deref());
        tell_unused(&data, &task.template, task.text_field.as_deref(), beside, observer)?;
        let labels = strata(&data, task, &fields)?;
        let drawn = (stated.train.seed.unwrap_or_default(), "examples");
        if self.trained_on.as_deref() == Some(data.digest()) {
            observer.warn(
                "the prompt was trained on this file, so the scores are better than they will be on other texts; evaluate on \
                 examples that it has not seen",
            );
        }
        let data = data::drawn(data, (&labels, fields.kind), limit, drawn, observer);
        checks::tell_empty("", &data, task, observer)?;
        let truth = data.require(&fields.truth)?;
        let examples = self.examples(&data, Some(truth), observer)?;
        Ok(TestSet { data, truth, examples })
    }

    /// Evaluates the labels predicted from `scores`, calibrated if there is a calibration.
    #[must_use]
    pub fn evaluate_labels(
        &self,
        scores: &[Vec<f64>],
        examples: &Examples,
        calibration: Option<&Calibration>,
    ) -> LabelEvaluation {
        let calibrated: Vec<Vec<f64>> = match calibration {
            Some(calibration) => scores.iter().map(|scores| calibration.apply(scores)).collect(),
            None => scores.to_vec(),
        };
        let mut evaluation = self.task.judge(&calibrated, examples);
        if self.task.objective() == Objective::Lm {
            // The loss is that of the labels' texts, which no calibration changes.
            evaluation.loss = self.task.judge(scores, examples).loss;
        }
        let probabilities: Vec<Vec<f64>> = calibrated.iter().map(|scores| probabilities(scores)).collect();
        let reliability = Reliability::of(&probabilities, examples.labels());
        let scale = self.task.verbalizer().and_then(Scale::of);
        let scale = scale.map(|scale| {
            let errors = scale.errors(&probabilities, examples.labels());
            (scale, errors)
        });
        LabelEvaluation { evaluation, probabilities, reliability, scale }
    }

    /// Generates a text for every example and compares it with the target; returns the texts, too.
    ///
    /// # Errors
    /// If a text does not fit next to the new tokens.
    pub fn evaluate_texts(
        &self,
        test: &TestSet,
        config: &GenerateConfig,
        observer: &dyn Observer,
    ) -> Result<(TextScores, Vec<Generated>)> {
        let (examples, most) = self.openings(&test.data, config, observer)?;
        observer.begin(examples.n() as u64, "writing");
        let mut n_done = 0;
        let mut on_event = |event: Event<'_>| {
            if let Event::Done { .. } = event {
                n_done += 1;
                observer.advance(n_done, "");
            }
            ControlFlow::Continue(())
        };
        let texts = self.generate_from((&examples, most), config, &mut on_event)?;
        observer.end();
        let mut pairs = Vec::with_capacity(texts.len());
        for (row, generated) in texts.iter().enumerate() {
            pairs.push((generated.text.as_str(), test.data.text(row, test.truth)?));
        }
        let scores = TextScores::of(&pairs);
        Ok((scores, texts))
    }
}
