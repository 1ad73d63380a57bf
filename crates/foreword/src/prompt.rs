//! A prompt directory opened: the learned rows, the model that they were made for, and the task that they do.

pub mod calibration;
pub mod evaluate;
pub mod format;
pub mod naming;
pub mod open;
pub mod texts;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use crate::calibration::Calibration;
use crate::data::FieldIdx;
use crate::display::{count, learned};
use crate::error::Result;
use crate::generate::{GenerateConfig, Generated};
use crate::metrics::reliability::sure;
use crate::notice::Observer;
use crate::score::{best, probabilities};
use crate::{Dataset, Evaluation, Examples, Model, Outcome, Resources, RunPlan, SoftPrompt, Task, TaskFile};

pub use open::{NONE, OpenRequest, Purpose, describe, read, recorded_name};

/// Texts that are scored between two results.
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
/// # let place = foreword::Place::check(dir.join("prompt"), true, false)?;
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
    /// What is asked of it.
    pub task: Task,
    /// The learned rows of the prompt, and of the other members of its ensemble where these are asked too; none for the bare
    /// model.
    pub prompts: Vec<SoftPrompt>,
    /// The field with the text, where the prompt or a setting says it.
    pub text_field: Option<String>,
    /// The field with the label or target, where the prompt or a setting says it.
    pub truth_field: Option<String>,
    /// From what stood for labels in the training data to their names.
    pub label_names: BTreeMap<String, String>,
    /// The correction of probabilities that is stored with the prompt.
    pub calibration: Option<Calibration>,
    /// Most tokens computed at a time.
    pub budget: usize,
}

/// The label of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The label; `None` where none is likely enough.
    pub label: Option<String>,
    /// The probability of the likeliest label.
    pub probability: f64,
    /// The probability of each label, in the order of the task's labels.
    pub probabilities: Vec<f64>,
    /// The log-likelihood of each label, in nats.
    pub log_likelihoods: Vec<f64>,
}

impl LoadedPrompt {
    /// Opens a prompt directory with the model that it was made for.
    ///
    /// # Errors
    /// If there is no such prompt, or its model is not the one that it names or can't be found by its name.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        OpenRequest::new(dir.as_ref(), &TaskFile::default(), &Resources::default()).open(None, &())
    }

    /// The result of a run, without going through its directory.
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
            budget: plan.config.micro_batch_tokens,
        }
    }

    /// The labels of texts, in their order. For a template with several fields see [`LoadedPrompt::classify_data`].
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

    /// The labels of a data set, each as soon as it is known, with its row. A label below `abstain_below` is not given. Stops
    /// where `on_result` breaks.
    ///
    /// # Errors
    /// As [`LoadedPrompt::classify`], and if a field of the template is missing.
    pub fn classify_data(
        &self,
        data: &Dataset,
        abstain_below: Option<f64>,
        on_result: &mut dyn FnMut(usize, Prediction) -> ControlFlow<()>,
    ) -> Result<()> {
        self.score(data, &mut |row, log_likelihoods| {
            on_result(row, self.predict(log_likelihoods, self.calibration.as_ref(), abstain_below))
        })
    }

    /// The log-likelihood of each label, in nats, of each example of a data set, with its row, as soon as it is known.
    ///
    /// # Errors
    /// As [`LoadedPrompt::classify_data`].
    pub fn score(
        &self,
        data: &Dataset,
        on_result: &mut dyn FnMut(usize, Vec<f64>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.task.classification()?;
        let rows: Vec<usize> = (0..data.n()).collect();
        for chunk in rows.chunks(CHUNK) {
            let examples = self.task.examples(&self.model, self.n_virtual(), &data.take(chunk), None)?;
            let scores = self.log_likelihoods(&examples, &mut |_| {})?;
            for (&row, scores) in chunk.iter().zip(scores) {
                if on_result(row, scores).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A text after each text, in their order.
    ///
    /// # Errors
    /// If a text does not fit into the model's context beside the new tokens.
    pub fn generate<S: AsRef<str>>(&self, texts: &[S], config: &GenerateConfig) -> Result<Vec<Generated>> {
        let data = Dataset::from_texts(texts.iter().map(|text| text.as_ref().to_owned()).collect())?;
        let prompt = self.as_texts();
        let (examples, most) = prompt.task.openings(&self.model, self.n_virtual(), &data, config)?;
        prompt.generate_from((&examples, most), config, &mut |_| ControlFlow::Continue(()))
    }

    /// A text after each example, with events as texts grow and end. `openings`: the examples, and the most new tokens of each.
    ///
    /// # Errors
    /// If the model gives no numbers.
    pub fn generate_from(
        &self,
        openings: (&Examples, usize),
        config: &GenerateConfig,
        on_event: &mut dyn FnMut(crate::generate::Event<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>> {
        let prompt = self.prompts.first();
        Ok(self.task.generate(&self.model, prompt, openings, config, self.budget, on_event)?)
    }

    /// How good the prompt is on a data set whose label or target field is `truth`.
    ///
    /// # Errors
    /// If a field is missing, or a label is none of the task's.
    pub fn evaluate(&self, data: &Dataset, truth: &str) -> Result<Evaluation> {
        let examples = self.task.examples(&self.model, self.n_virtual(), data, Some(data.require(truth)?))?;
        Ok(self.task.judge(&self.scores(&examples, &mut |_| {})?, &examples))
    }

    /// The label that log-likelihoods stand for, corrected by a calibration where there is one.
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
        let names = self.task.verbalizer().map_or(&[][..], |labels| labels.names());
        let label = sure(&probabilities, abstain_below).and_then(|label| names.get(label)).cloned();
        let probability = probabilities.get(best(&probabilities)).copied().unwrap_or_default();
        Prediction { label, probability, probabilities, log_likelihoods }
    }

    /// P, of the longest member.
    #[must_use]
    pub fn n_virtual(&self) -> usize {
        self.prompts.iter().map(SoftPrompt::n_virtual).max().unwrap_or(0)
    }

    /// How many prompts are asked; the bare model counts as one.
    #[must_use]
    pub fn n_members(&self) -> usize {
        self.prompts.len().max(1)
    }

    fn members(&self) -> Vec<&SoftPrompt> {
        self.prompts.iter().collect()
    }

    /// The log-likelihoods of all labels, or of the targets; the mean of the members'. `progress`: examples done, of all members.
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

    /// The same up to a constant for each example where the objective is `label`, which is cheaper.
    ///
    /// # Errors
    /// As [`LoadedPrompt::log_likelihoods`].
    pub fn scores(&self, examples: &Examples, progress: &mut dyn FnMut(usize)) -> Result<Vec<Vec<f64>>> {
        Ok(self.task.scores(&self.model, &self.members(), examples, self.budget, progress)?)
    }

    /// The prompt, the ensemble or the bare model in a word.
    #[must_use]
    pub fn name(&self) -> String {
        match self.prompts.len() {
            0 => "bare model".to_owned(),
            1 => learned(self.task.method).to_owned(),
            n => format!("ensemble of {n}"),
        }
    }

    /// The data in tokens; says how many texts had to be cut.
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
        tell_cuts(&examples, observer);
        Ok(examples)
    }

    /// The data in tokens with room for new ones, and the most of those; says how many texts had to be cut.
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
        tell_cuts(&examples, observer);
        Ok((examples, most))
    }

    /// The same prompt for texts without fields.
    fn as_texts(&self) -> Self {
        Self {
            model: self.model.clone(),
            task: Task { text_field: None, ..self.task.clone() },
            prompts: self.prompts.clone(),
            text_field: self.text_field.clone(),
            truth_field: self.truth_field.clone(),
            label_names: self.label_names.clone(),
            calibration: self.calibration.clone(),
            budget: self.budget,
        }
    }
}

fn tell_cuts(examples: &Examples, observer: &dyn Observer) {
    if examples.n_cut > 0 {
        let (n_cut, n) = (count(examples.n_cut as u64), count(examples.n() as u64));
        observer.warn(&format!("{n_cut} of {n} texts were cut to fit"));
    }
}
