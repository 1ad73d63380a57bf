//! What a plan says of itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::{RunPlan, memory};
use crate::Examples;
use crate::device;
use crate::display::{FEW_LISTED, MOST_LISTED, count, in_a_line};
use crate::error::Result;
use crate::metrics::scale::Scale;
use crate::notice::{Notice, Observer};
use crate::prompt::format;
use crate::settings::Method;
use crate::train::Length;

/// A summary of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlanSummary {
    /// The model's name.
    pub model: String,
    /// Number of parameters, all frozen.
    pub n_parameters: usize,
    /// Number of training examples.
    pub n_train: usize,
    /// Number of development examples.
    pub n_dev: usize,
    /// Number of test examples.
    pub n_test: usize,
    /// The template, or the template of the user message in a chat.
    pub template: String,
    /// Whether the template is inside the model's chat template.
    pub is_chat: bool,
    /// The labels and their texts; empty for generation.
    pub labels: BTreeMap<String, String>,
    /// `prompt` or `prefix`.
    pub method: Method,
    /// The init of the first candidate.
    pub init: String,
    /// Number of virtual tokens.
    pub virtual_tokens: usize,
    /// Numbers per virtual token.
    pub width: usize,
    /// Number of candidates trained at once.
    pub candidates: usize,
    /// Number of updates at most; null: as many as there is time for.
    pub steps: Option<u64>,
    /// Minutes of the whole run, if they are limited.
    pub minutes: Option<f64>,
    /// Examples per update.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Random seed.
    pub seed: u64,
    /// Estimated peak memory in bytes.
    pub peak_memory_bytes: u64,
    /// The output directory.
    pub out: PathBuf,
    /// The notices so far.
    pub notices: Vec<Notice>,
}

/// Describes how many steps there will be.
fn how_long(length: Length) -> String {
    match length {
        Length::Steps(steps) => format!("{} steps", count(steps)),
        Length::Plateau { most } => format!("at most {} steps", count(most)),
        Length::Time { seconds, .. } => format!("steps for {} minutes", seconds / 60.0),
    }
}

impl Serialize for RunPlan {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.summary().serialize(serializer)
    }
}

impl RunPlan {
    /// A summary of the plan.
    #[must_use]
    pub fn summary(&self) -> PlanSummary {
        let n = |examples: &Option<Examples>| examples.as_ref().map_or(0, Examples::n);
        let labels = self
            .task
            .verbalizer()
            .map(|labels| labels.names().iter().cloned().zip(labels.strings().iter().cloned()).collect());
        PlanSummary {
            model: self.model.name().to_owned(),
            n_parameters: self.model.backbone.spec().n_parameters(),
            n_train: self.train.n(),
            n_dev: n(&self.dev),
            n_test: n(&self.test),
            template: self.task.template.source().to_owned(),
            is_chat: self.task.chat.is_some(),
            labels: labels.unwrap_or_default(),
            method: self.task.method,
            init: self.init().to_string(),
            virtual_tokens: self.start().n_virtual(),
            width: self.start().width(),
            candidates: self.candidates.len(),
            steps: self.config.length.most_steps(),
            minutes: match self.config.length {
                Length::Time { seconds, .. } => Some(seconds / 60.0),
                Length::Steps(_) | Length::Plateau { .. } => None,
            },
            batch_size: self.config.batch_size,
            learning_rate: self.config.peak_rate(self.task.method, self.scale()),
            seed: self.config.seed,
            peak_memory_bytes: self.estimate.peak(),
            out: self.output.out.clone(),
            notices: self.notices.clone(),
        }
    }

    pub(super) fn details(&self) -> Result<Vec<(&'static str, String)>> {
        let shared = self.task.shared_prefix(&self.model, &self.train, self.start().n_virtual())?;
        let shared = format!(
            "{} tokens that all training texts begin with, computed once for all of them",
            shared.n_shared()
        );
        Ok(vec![self.model.computing(self.config.micro_batch_tokens), ("shared", shared)])
    }

    pub(super) fn tell(&self, observer: &dyn Observer) {
        let plan = self.summary();
        let names = self.task.verbalizer().map_or(&[][..], |labels| labels.names());
        let n_listed = if names.len() > MOST_LISTED { FEW_LISTED } else { names.len() };
        let labels = names.iter().take(n_listed);
        let labels = labels.map(|name| format!("{} → {:?}", in_a_line(name), plan.labels[name]));
        let more = match names.len() - n_listed {
            0 => String::new(),
            n => format!(" and {} more", count(n)),
        };
        let trying = match plan.candidates {
            1 => String::new(),
            n => format!(
                "{n} candidates at once; the worse half is dropped until {} {}; the first is the one above",
                self.config.survivors,
                if self.config.survivors == 1 { "remains" } else { "remain" }
            ),
        };
        let lines = [
            ("model", format!("{}, {} numbers, all frozen", plan.model, count(plan.n_parameters))),
            (
                "data",
                format!(
                    "{} to train on, {} dev, {} test",
                    count(plan.n_train),
                    count(plan.n_dev),
                    count(plan.n_test)
                ),
            ),
            ("fields", self.fields.describe(&self.task.template)),
            ("template", format::in_words(&self.task.template, self.task.chat.as_ref())),
            ("labels", labels.collect::<Vec<_>>().join(", ") + &more),
            ("init", in_a_line(&plan.init)),
            (
                "learning",
                format!(
                    "{} numbers ({} virtual tokens × {}), {} of {} examples, learning rate {:.2e}",
                    count(self.n_learned()),
                    plan.virtual_tokens,
                    plan.width,
                    how_long(self.config.length),
                    plan.batch_size,
                    plan.learning_rate
                ),
            ),
            ("trying", trying),
            ("device", device::name(self.model.backbone.backend()).map(str::to_owned).unwrap_or_default()),
            ("memory", memory::in_words(&self.estimate, &self.config)),
            ("out", plan.out.display().to_string()),
        ];
        if let Some((first, last)) = self.task.verbalizer().and_then(Scale::of).map(|scale| scale.ends()) {
            observer.say(&format!(
                "the labels look like a scale from {first} to {last}: `foreword eval` also gives the mean absolute error of \
                 the expected value"
            ));
        }
        for (topic, text) in lines.into_iter().filter(|(_, text)| !text.is_empty()) {
            observer.tell(topic, text);
        }
    }
}
