//! An opened prompt directory: the learned rows, their model, and their task.

pub mod calibration;
pub mod evaluate;
pub mod format;
pub mod naming;
pub mod open;
pub mod predictions;
pub mod texts;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use crate::calibration::Calibration;
use crate::data::FieldIdx;
use crate::device::Machine;
use crate::display::{count, learned};
use crate::error::Result;
use crate::generate::{GenerateConfig, Generated};
use crate::likelihood::{best, probabilities};
use crate::metrics::reliability::sure;
use crate::notice::Observer;
use crate::prompt::naming::Naming;
use crate::score::Scorers;
use crate::{
    Dataset, Evaluation, Examples, Model, Outcome, Resources, RunPlan, SoftPrompt, Task, TaskError, TaskFile,
};

pub use open::{NONE, OpenRequest, Purpose, describe, read, recorded_name};

/// Number of texts tokenised at a time.
const CHUNK: usize = 256;

/// A prompt with its model and its task, ready for use.
///
/// ```
/// # fn main() -> foreword::Result<()> {
/// # let dir = std::env::temp_dir().join(format!("foreword-doc-{}", std::process::id()));
/// # let rows = "text,label\nA joy.,positive\nDull.,negative\nFunny.,positive\nFlat.,negative\n";
/// # std::fs::create_dir_all(&dir).unwrap();
/// # std::fs::write(dir.join("train.csv"), rows).unwrap();
/// # let mut settings = foreword::TaskFile::default();
/// # settings.data.train = Some(dir.join("train.csv"));
/// # settings.train.steps = Some(2);
/// # let place = foreword::OutputDir::replace(dir.join("prompt"))?;
/// # foreword::Run::new(foreword::RunPlan::new(&settings, place)?).start(&mut |_| {})?;
/// # let dir = dir.join("prompt");
/// let prompt = foreword::LoadedPrompt::open(&dir)?;
/// for prediction in prompt.classify(&["The movie was fantastic."])? {
///     println!("{} ({:.1} %)", prediction.label.unwrap(), 100.0 * prediction.probability);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LoadedPrompt {
    /// The frozen model.
    pub model: Model,
    /// The task.
    pub task: Task,
    /// The learned rows of the prompt, and of the other ensemble members if these are used; empty for the bare model.
    pub prompts: Vec<SoftPrompt>,
    /// The text field, if the prompt or a setting names it.
    pub text_field: Option<String>,
    /// The field of the label or target, if the prompt or a setting names it.
    pub truth_field: Option<String>,
    /// Map from label values in the training data to label names.
    pub label_names: BTreeMap<String, String>,
    /// The calibration stored with the prompt.
    pub calibration: Option<Calibration>,
    /// The digest of the file that the prompt was trained on, if it is recorded.
    pub trained_on: Option<String>,
    /// Maximum number of tokens computed at a time.
    pub budget: usize,
}

/// The prediction for a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The label; `None` if no label is likely enough.
    pub label: Option<String>,
    /// The probability of the most likely label.
    pub probability: f64,
    /// The probability of each label, in the order of the task's labels.
    pub probabilities: Vec<f64>,
    /// The log-likelihood of each label, in nats.
    pub log_likelihoods: Vec<f64>,
}

impl LoadedPrompt {
    /// Opens a prompt directory with its model, for its trained task.
    ///
    /// # Errors
    /// If there is no such prompt, or its model can't be found by name or differs from the recorded one.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_for(dir, Purpose::Evaluate)
    }

    /// As [`LoadedPrompt::open`], for a purpose that may differ from its trained task. [`OpenRequest`] has more options.
    ///
    /// # Errors
    /// As [`LoadedPrompt::open`], and if it can't be used for this.
    pub fn open_for(dir: impl AsRef<Path>, purpose: Purpose) -> Result<Self> {
        let (stated, resources) = (TaskFile::default(), Resources::default());
        OpenRequest { purpose, ..OpenRequest::new(dir.as_ref(), &stated, &resources) }.open(None, &())
    }

    /// The result of a run, without reading its directory.
    #[must_use]
    pub fn of(plan: &RunPlan, outcome: &Outcome) -> Self {
        Self { prompts: vec![outcome.soft_prompt.clone()], ..Self::bare(plan) }
    }

    /// The model and the task of a run without a prompt.
    #[must_use]
    pub fn bare(plan: &RunPlan) -> Self {
        Self {
            model: plan.model.clone(),
            task: plan.task.clone(),
            prompts: Vec::new(),
            text_field: plan.fields.text.clone(),
            truth_field: Some(plan.fields.truth.clone()),
            label_names: plan.label_names.clone(),
            calibration: None,
            trained_on: None,
            budget: plan.config.micro_batch_tokens,
        }
    }

    /// Classifies texts, in order. For a template with several fields, use [`LoadedPrompt::classify_data`].
    ///
    /// # Errors
    /// If the task has no labels, or a text does not fit into the model's context.
    pub fn classify<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Prediction>> {
        let data = Dataset::from_texts(texts.iter().map(|text| text.as_ref().to_owned()).collect())?;
        let mut all = Vec::with_capacity(data.n());
        self.as_texts().classify_data(&data, None, &mut |_, prediction| {
            all.push(prediction);
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    /// Classifies a data set and passes each prediction with its row to `on_result` as soon as it is known. Labels with a
    /// probability below `abstain_below` are withheld. Stops when `on_result` breaks.
    ///
    /// # Errors
    /// As [`LoadedPrompt::classify`], and if a field of the template is missing.
    pub fn classify_data(
        &self,
        data: &Dataset,
        abstain_below: Option<f64>,
        on_result: &mut dyn FnMut(usize, Prediction) -> ControlFlow<()>,
    ) -> Result<()> {
        self.classifier()?.score(data, &mut |row, log_likelihoods| {
            on_result(row, self.predict(log_likelihoods, self.calibration.as_ref(), abstain_below))
        })
    }

    /// Prepares to score texts that come one after another: computes the prompt's keys and values, once for all of them.
    ///
    /// # Errors
    /// If the task has no labels, or the prompt does not fit into the model's context.
    pub fn classifier(&self) -> Result<Classifier<'_>> {
        self.task.classification()?;
        let scorers = self.task.scorers(&self.model, &self.members(), self.budget)?;
        Ok(Classifier { prompt: self, scorers, n: 0, n_cut: 0 })
    }

    /// Generates a text for each text, in order.
    ///
    /// # Errors
    /// If a text does not fit into the model's context next to the new tokens.
    pub fn generate<S: AsRef<str>>(&self, texts: &[S], config: &GenerateConfig) -> Result<Vec<Generated>> {
        let data = Dataset::from_texts(texts.iter().map(|text| text.as_ref().to_owned()).collect())?;
        let prompt = self.as_texts();
        let (examples, most) = prompt.task.openings(&self.model, self.n_virtual(), &data, config)?;
        prompt.generate_from((&examples, most), config, &mut |_| ControlFlow::Continue(()))
    }

    /// Prepares to generate texts after texts that come one after another: computes the prompt's keys and values, once for
    /// all of them.
    ///
    /// # Errors
    /// If the prompt does not fit into the model's context.
    pub fn generator(&self, config: &GenerateConfig) -> Result<TextGenerator<'_>> {
        let most = self.task.max_new_tokens(&self.model, self.n_virtual(), config)?;
        let generator = self.task.generator(&self.model, self.prompts.first(), most, config, self.budget)?;
        Ok(TextGenerator { prompt: self, config: config.clone(), generator, n_cut: 0, n: 0 })
    }

    /// Generates a text for each example, with events as texts grow and end. `openings`: the examples, and the maximum
    /// number of new tokens of each.
    ///
    /// # Errors
    /// If the model's output is not finite.
    pub fn generate_from(
        &self,
        openings: (&Examples, usize),
        config: &GenerateConfig,
        on_event: &mut dyn FnMut(crate::generate::Event<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>> {
        let prompt = self.prompts.first();
        Ok(self.task.generate(&self.model, prompt, openings, config, self.budget, on_event)?)
    }

    /// Evaluates the prompt on a data set with the label or target field `truth`, with the stored calibration and names of
    /// labels.
    ///
    /// # Errors
    /// If a field is missing, or the task does not have a label.
    pub fn evaluate(&self, data: &Dataset, truth: &str) -> Result<Evaluation> {
        let named = match self.task.verbalizer() {
            Some(labels) => {
                let (recorded, labels) = (Some(&self.label_names), Some(labels.names()));
                &Naming { stated: None, recorded, labels }.named(data.clone(), truth)?.dataset
            }
            None => data,
        };
        let truth = Some(named.require(truth)?);
        let examples = self.task.examples(&self.model, self.n_virtual(), named, truth)?;
        let scores = self.scores(&examples, &mut |_| {})?;
        Ok(self.evaluate_labels(&scores, &examples, self.calibration.as_ref()).evaluation)
    }

    /// The label with the highest log-likelihood, calibrated if there is a calibration.
    #[must_use]
    pub fn predict(
        &self,
        log_likelihoods: Vec<f64>,
        calibration: Option<&Calibration>,
        abstain_below: Option<f64>,
    ) -> Prediction {
        let probabilities = match calibration {
            Some(calibration) => probabilities(&calibration.apply(&log_likelihoods)),
            None => probabilities(&log_likelihoods),
        };
        self.prediction(log_likelihoods, probabilities, abstain_below)
    }

    /// The prediction from log-likelihoods and the probabilities that they have, calibrated if they are to be.
    #[must_use]
    pub fn prediction(
        &self,
        log_likelihoods: Vec<f64>,
        probabilities: Vec<f64>,
        abstain_below: Option<f64>,
    ) -> Prediction {
        let names = self.task.verbalizer().map_or(&[][..], |labels| labels.names());
        let label = sure(&probabilities, abstain_below).and_then(|label| names.get(label)).cloned();
        let probability = probabilities.get(best(&probabilities)).copied().unwrap_or_default();
        Prediction { label, probability, probabilities, log_likelihoods }
    }

    /// P of the longest member.
    #[must_use]
    pub fn n_virtual(&self) -> usize {
        self.prompts.iter().map(SoftPrompt::n_virtual).max().unwrap_or(0)
    }

    /// Number of prompts in use; the bare model counts as one.
    #[must_use]
    pub fn n_members(&self) -> usize {
        self.prompts.len().max(1)
    }

    fn members(&self) -> Vec<&SoftPrompt> {
        self.prompts.iter().collect()
    }

    /// The log-likelihoods of all labels, or of the targets; averaged over the members. `progress`: finished examples of
    /// all members.
    ///
    /// # Errors
    /// If a score is not a finite number.
    pub fn log_likelihoods(
        &self,
        examples: &Examples,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>> {
        Ok(self.task.log_likelihoods(&self.model, &self.members(), examples, self.budget, progress)?)
    }

    /// As [`LoadedPrompt::log_likelihoods`], but only up to a constant per example if the objective is `label`, which is
    /// cheaper.
    ///
    /// # Errors
    /// As [`LoadedPrompt::log_likelihoods`].
    pub fn scores(&self, examples: &Examples, progress: &mut dyn FnMut(usize)) -> Result<Vec<Vec<f64>>> {
        Ok(self.task.scores(&self.model, &self.members(), examples, self.budget, progress)?)
    }

    /// The name of what is evaluated: the prompt, the ensemble or the bare model.
    #[must_use]
    pub fn name(&self) -> String {
        match self.prompts.len() {
            0 => "bare model".to_owned(),
            1 => learned(self.task.method).to_owned(),
            n => format!("ensemble of {n}"),
        }
    }

    /// Tokenises the data; reports how many texts were truncated.
    ///
    /// # Errors
    /// If a field is missing, a label is unknown, or an example does not fit.
    pub fn examples(
        &self,
        data: &Dataset,
        truth: Option<FieldIdx>,
        observer: &dyn Observer,
    ) -> Result<Examples> {
        let examples = self.task.examples(&self.model, self.n_virtual(), data, truth)?;
        tell_cuts(examples.n_cut, examples.n(), observer);
        Ok(examples)
    }

    /// Tokenises the data and leaves room for new tokens; returns the maximum number of these, and reports how many texts
    /// were truncated.
    ///
    /// # Errors
    /// As [`LoadedPrompt::examples`].
    pub fn openings(
        &self,
        data: &Dataset,
        config: &GenerateConfig,
        observer: &dyn Observer,
    ) -> Result<(Examples, usize)> {
        let (examples, most) = self.task.openings(&self.model, self.n_virtual(), data, config)?;
        tell_cuts(examples.n_cut, examples.n(), observer);
        Ok((examples, most))
    }

    /// The same prompt for plain texts without fields.
    fn as_texts(&self) -> Self {
        Self {
            model: self.model.clone(),
            task: Task { text_field: None, ..self.task.clone() },
            prompts: self.prompts.clone(),
            text_field: self.text_field.clone(),
            truth_field: self.truth_field.clone(),
            label_names: self.label_names.clone(),
            calibration: self.calibration.clone(),
            trained_on: self.trained_on.clone(),
            budget: self.budget,
        }
    }
}

/// A prompt that scores texts as they come. Scores do not depend on the other texts of a call, or on other calls.
pub struct Classifier<'p> {
    prompt: &'p LoadedPrompt,
    scorers: Scorers<'p, Machine>,
    /// Number of texts so far.
    n: usize,
    /// Number of truncated texts so far.
    n_cut: usize,
}

impl Classifier<'_> {
    /// Scores a data set: the log-likelihood of each label in nats, for each example with its row, as soon as its
    /// micro-batch is computed. Stops when `on_result` breaks.
    ///
    /// # Errors
    /// If a field of the template is missing, or a text does not fit into the model's context.
    pub fn score(
        &mut self,
        data: &Dataset,
        on_result: &mut dyn FnMut(usize, Vec<f64>) -> ControlFlow<()>,
    ) -> Result<()> {
        let Self { prompt, scorers, n, n_cut } = self;
        let task = &prompt.task;
        let rows: Vec<usize> = (0..data.n()).collect();
        for chunk in rows.chunks(CHUNK) {
            let examples = task.examples(&prompt.model, prompt.n_virtual(), &data.take(chunk), None)?;
            *n += examples.n();
            *n_cut += examples.n_cut;
            let mut flow = ControlFlow::Continue(());
            let scored = task.score_each(scorers, &examples, true, &mut |example, scores| {
                flow = on_result(chunk[example], scores);
                flow
            });
            scored.map_err(|error| match error {
                TaskError::NotFinite { example } => TaskError::NotFinite { example: chunk[0] + example },
                other => other,
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Reports how many of the texts so far were truncated.
    pub fn tell_cuts(&self, observer: &dyn Observer) {
        tell_cuts(self.n_cut, self.n, observer);
    }
}

/// A prompt that generates texts after texts as they come. A text depends on the text before it, on its index and on the
/// seed, and not on the others.
pub struct TextGenerator<'p> {
    prompt: &'p LoadedPrompt,
    config: GenerateConfig,
    generator: crate::generate::TextGenerator<'p, Machine>,
    /// Number of texts so far.
    n: usize,
    /// Number of truncated texts so far.
    n_cut: usize,
}

impl TextGenerator<'_> {
    /// Adds texts; their indices go on from the last one, from 0.
    ///
    /// # Errors
    /// If a field of the template is missing, or a text does not fit into the model's context next to the new tokens.
    pub fn admit(&mut self, data: &Dataset) -> Result<()> {
        let Self { prompt, config, .. } = self;
        let (examples, _) = prompt.task.openings(&prompt.model, prompt.n_virtual(), data, config)?;
        self.n += examples.n();
        self.n_cut += examples.n_cut;
        for context in examples.contexts {
            self.generator.admit(context)?;
        }
        Ok(())
    }

    /// Number of texts whose turn has not come.
    #[must_use]
    pub fn n_waiting(&self) -> usize {
        self.generator.n_waiting()
    }

    /// Whether all texts so far are complete.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.generator.is_idle()
    }

    /// Generates one token for each text in progress, and passes on a break of `on_event`.
    ///
    /// # Errors
    /// If the model's output is not finite.
    pub fn step(
        &mut self,
        on_event: &mut dyn FnMut(crate::generate::Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        Ok(self.generator.step(on_event)?)
    }

    /// Reports how many of the texts so far were truncated.
    pub fn tell_cuts(&self, observer: &dyn Observer) {
        tell_cuts(self.n_cut, self.n, observer);
    }
}

fn tell_cuts(n_cut: usize, n: usize, observer: &dyn Observer) {
    if n_cut > 0 {
        observer.warn(&format!("{} of {} texts were cut to fit", count(n_cut as u64), count(n as u64)));
    }
}
