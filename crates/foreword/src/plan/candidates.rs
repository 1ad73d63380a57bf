//! The start of a run: the initial rows and the settings of each candidate.

use super::splits::Splits;
use crate::candidates::{Stated, Variation, variations};
use crate::context_tuning::{DemonstrationPrompt, demonstrations};
use crate::display::{count, either};
use crate::error::{Error, Result, UserError};
use crate::fields::Fields;
use crate::notice::Observer;
use crate::record;
use crate::settings::{CandidateCount, DEFAULT_STEPS, DEFAULT_VIRTUAL_TOKENS, Init, Method};
use crate::train::{Length, default_batch_size};
use crate::{
    Candidate, Dataset, Model, PromptDirectory, SoftPrompt, Task, TaskFile, TrainConfig, Verbalizer,
};

/// A candidate of a run: its settings and its initial rows.
#[derive(Clone, Debug)]
pub struct PlannedCandidate {
    /// Its init, learning rate, length and seed.
    pub how: Variation,
    /// Its initial rows.
    pub candidate: Candidate,
}

impl PlannedCandidate {
    /// P.
    #[must_use]
    pub fn n_virtual(&self) -> usize {
        self.candidate.start.n_virtual()
    }

    /// Describes its settings.
    #[must_use]
    pub fn describe(&self) -> String {
        let Variation { init, learning_rate, n_virtual, seed } = &self.how;
        format!("learning rate {learning_rate}, init {init}, {n_virtual} virtual tokens, seed {seed}")
    }
}

/// All candidates (one by default), and the examples without those used as init. Sets the parts of the configuration that
/// depend on them.
pub(super) fn planned(
    file: &TaskFile,
    splits: Splits,
    (task, fields): (&Task, &Fields),
    model: &Model,
    config: &mut TrainConfig,
    observer: &dyn Observer,
) -> Result<(Splits, Vec<PlannedCandidate>)> {
    let init = file.prompt.init.clone().unwrap_or_else(|| default_init(task, fields));
    let shown = shown(&init, file, (model, task), (&splits.train, fields), config.seed)?;
    let splits = without_shown(splits, shown.as_ref(), task)?;
    config.batch_size = file.train.batch_size.unwrap_or_else(|| default_batch_size(splits.train.n()));
    config.length = length(file, config.batch_size, &splits)?;
    let start = match &shown {
        Some(shown) => shown.start.clone(),
        None => start(&init, file.prompt.virtual_tokens, model, task, config.seed, observer)?,
    };
    if let (Some(shown), Method::Prefix) = (&shown, task.method) {
        config.demonstrations.clone_from(&shown.demonstrations);
    }
    let mut planned = several(file, (task, fields), model, config, shown.as_ref())?;
    if planned.is_empty() {
        let (learning_rate, seed) = (config.learning_rate, config.seed);
        let how = Variation { init, learning_rate, n_virtual: start.n_virtual(), seed };
        planned.push(PlannedCandidate { how, candidate: Candidate { start, learning_rate, seed } });
    }
    if planned.len() > 1 && splits.dev.is_none() {
        return Err(UserError::new("there are too few examples to choose among candidates by")
            .hint("give dev examples with --dev, or leave out --candidates")
            .into());
    }
    Ok((splits, planned))
}

/// How long to train.
fn length(file: &TaskFile, batch_size: usize, splits: &Splits) -> Result<Length> {
    let (stated, is_few) = (&file.train, file.data.shots.is_some());
    let n = |dataset: &Option<Dataset>| dataset.as_ref().map_or(0, Dataset::n);
    let several = stated.candidates.is_some_and(|candidates| candidates.n() > 1);
    if several && (stated.minutes.is_some() || stated.max_steps.is_some()) {
        return Err(UserError::new(
            "several candidates need a number of steps: the worse half leaves after a part of them",
        )
        .hint("give --steps or --epochs instead of --minutes and --max-steps, or leave out --candidates")
        .into());
    }
    Ok(match (stated.epochs, stated.minutes, n(&splits.dev)) {
        (Some(epochs), ..) => Length::Steps(steps(epochs, batch_size, splits.train.n())?),
        (None, Some(minutes), n_dev) => Length::Time {
            seconds: if minutes > 0.0 {
                60.0 * minutes
            } else {
                return Err(not_positive("minutes", minutes));
            },
            evaluations_after: (n_dev + 2 * n(&splits.test)) as f64 / n_dev.max(1) as f64,
        },
        (None, None, n_dev) => match stated.length() {
            Length::Plateau { most } if several || is_few || n_dev == 0 => {
                Length::Steps(stated.max_steps.map_or(DEFAULT_STEPS, |_| most))
            }
            length => length,
        },
    })
}

/// Number of steps of this many passes over the training examples, rounded up.
fn steps(epochs: f64, batch_size: usize, n_train: usize) -> Result<u64> {
    /// Whole numbers up to this are exact in an f64; no run has more steps.
    const MOST: f64 = (1_u64 << 53) as f64;
    let steps = (epochs * n_train as f64 / batch_size.clamp(1, n_train.max(1)) as f64).ceil();
    if (1.0..=MOST).contains(&steps) { Ok(steps as u64) } else { Err(not_positive("epochs", epochs)) }
}

fn not_positive(setting: &str, value: f64) -> Error {
    UserError::new(format!("{setting} must be greater than 0, not {value}")).into()
}

/// A sentence that describes the task, as a person would write it.
pub fn default_init(task: &Task, fields: &Fields) -> Init {
    let text = match &fields.text {
        Some(text) => text.clone(),
        None => {
            either(&task.template.required().map(str::to_owned).collect::<Vec<_>>()).replace(" or ", " and ")
        }
    };
    Init::Text(match task.verbalizer() {
        Some(verbalizer) => format!("Classify the {text} as {}.", either(&label_words(verbalizer))),
        None => format!("Read the {text} and write the {}.", fields.truth),
    })
}

/// The label texts without surrounding whitespace.
pub fn label_words(verbalizer: &Verbalizer) -> Vec<String> {
    let all = verbalizer.names().iter().zip(verbalizer.strings());
    let word = |(name, string): (&String, &String)| match string.trim() {
        "" => name.clone(),
        word => word.to_owned(),
    };
    all.map(word).collect()
}

/// The initial rows.
fn start(
    init: &Init,
    n_virtual: Option<usize>,
    model: &Model,
    task: &Task,
    seed: u64,
    observer: &dyn Observer,
) -> Result<SoftPrompt> {
    let start = crate::init::start(model, task, init, n_virtual.unwrap_or(DEFAULT_VIRTUAL_TOKENS), seed)?;
    if let Init::From(dir) = init
        && let Err(error) = record::check_fit(&PromptDirectory::read(dir)?, model)
    {
        observer.warn(&format!(
            "{error}; its rows are only where learning begins, but may be no better than noise"
        ));
    }
    if let Init::Text(text) = init {
        let (n, taken) = (model.tokenizer.encode_plain(text)?.len(), start.n_virtual());
        if n > taken {
            observer.say(&format!(
                "the init has {n} tokens, of which the first {taken} are taken; --virtual-tokens {n} takes all"
            ));
        }
    }
    if let Some(asked) = n_virtual.filter(|&asked| asked != start.n_virtual()) {
        let found = start.n_virtual();
        observer.warn(&format!(
            "{init} has {found} virtual tokens, which are taken instead of the {asked} asked for"
        ));
    }
    Ok(start)
}

/// Default maximum number of virtual tokens for the init `demonstrations`; half of the model's context if that is less.
const MOST_SHOWN: usize = 128;

/// The demonstrations for the init, if requested.
fn shown(
    init: &Init,
    file: &TaskFile,
    (model, task): (&Model, &Task),
    (train, fields): (&Dataset, &Fields),
    seed: u64,
) -> Result<Option<DemonstrationPrompt>> {
    if *init != Init::Demonstrations {
        return Ok(None);
    }
    let half = model.backbone.spec().context / 2;
    let most = file.prompt.virtual_tokens.unwrap_or(MOST_SHOWN.min(half));
    let examples = task.examples(model, most, train, Some(train.require(&fields.truth)?))?;
    Ok(Some(demonstrations(model, task, &examples, most, seed)?))
}

/// The splits without the training examples used as init: the rows would give away their labels.
fn without_shown(splits: Splits, shown: Option<&DemonstrationPrompt>, task: &Task) -> Result<Splits> {
    let Some(shown) = shown.filter(|_| task.method == Method::Prompt) else { return Ok(splits) };
    let is_shown = |row: &usize| shown.demonstrations.iter().any(|shown| shown.example == *row);
    let rest: Vec<usize> = (0..splits.train.n()).filter(|row| !is_shown(row)).collect();
    if rest.is_empty() {
        return Err(UserError::new(
            "every training example is a demonstration, which leaves none to learn from",
        )
        .hint("use --method prefix, where an example does not see itself; or fewer --virtual-tokens")
        .into());
    }
    Ok(Splits { train: splits.train.take(&rest), ..splits })
}

/// The requested candidates; empty for one. Explicit settings are not varied.
fn several(
    file: &TaskFile,
    (task, fields): (&Task, &Fields),
    model: &Model,
    config: &TrainConfig,
    shown: Option<&DemonstrationPrompt>,
) -> Result<Vec<PlannedCandidate>> {
    let n = file.train.candidates.map_or(1, CandidateCount::n);
    if config.survivors > n {
        let (survivors, candidates) = (config.survivors, count(n as u64));
        return Err(UserError::new(format!(
            "an ensemble of {survivors} can't be found among {candidates} candidates"
        ))
        .hint("ask for more --candidates, or a smaller --ensemble")
        .into());
    }
    if n == 1 {
        return Ok(Vec::new());
    }
    let stated = Stated {
        method: task.method,
        init: file.prompt.init.as_ref(),
        default_init: default_init(task, fields),
        learning_rate: file.train.learning_rate,
        n_virtual: shown.map(|shown| shown.start.n_virtual()).or(file.prompt.virtual_tokens),
        default_n_virtual: DEFAULT_VIRTUAL_TOKENS,
        has_labels: task.verbalizer().is_some(),
        seed: config.seed,
    };
    let candidate = |how: Variation| {
        let start = match shown {
            Some(shown) => shown.start.clone(),
            None => crate::init::start(model, task, &how.init, how.n_virtual, how.seed)?,
        };
        let candidate = Candidate { start, learning_rate: how.learning_rate, seed: how.seed };
        crate::error::Result::Ok(PlannedCandidate { how, candidate })
    };
    variations(n, &stated).into_iter().map(candidate).collect()
}
