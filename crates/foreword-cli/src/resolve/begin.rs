//! How a run begins: its first rows, or those of every candidate.

use anyhow::Result;
use foreword::candidates::{Stated, Variation, variations};
use foreword::context_tuning::{DemonstrationPrompt, demonstrations};
use foreword::record;
use foreword::settings::{CandidateCount, Init, Method};
use foreword::train::DEFAULT_VIRTUAL_TOKENS;
use foreword::{
    Candidate, Dataset, Model, PromptDirectory, SoftPrompt, Task, TaskFile, TrainConfig, Verbalizer,
};

use super::Fields;
use super::splits::Splits;
use crate::device::Machine;
use crate::exit::Given;
use crate::printer::Printer;
use crate::words::{count, either};

/// One of several candidates.
#[derive(Clone, Debug)]
pub(crate) struct Tried {
    pub(crate) how: Variation,
    pub(crate) candidate: Candidate,
}

impl Tried {
    /// What is tried, in words.
    pub(crate) fn in_words(&self) -> String {
        let Variation { init, learning_rate, n_virtual, seed } = &self.how;
        format!("learning rate {learning_rate}, init {init}, {n_virtual} virtual tokens, seed {seed}")
    }
}

/// A sentence that names the task, as a person would write it.
pub(crate) fn default_init(task: &Task, fields: &Fields) -> Init {
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

/// The labels as the model reads them: their strings, without the space around them.
pub(crate) fn label_words(verbalizer: &Verbalizer) -> Vec<String> {
    let all = verbalizer.names().iter().zip(verbalizer.strings());
    let word = |(name, string): (&String, &String)| match string.trim() {
        "" => name.clone(),
        word => word.to_owned(),
    };
    all.map(word).collect()
}

/// The first rows.
pub(super) fn start(
    init: &Init,
    n_virtual: Option<usize>,
    model: &Model<Machine>,
    task: &Task,
    seed: u64,
    printer: &Printer,
) -> Result<SoftPrompt> {
    let start = foreword::init::start(model, task, init, n_virtual.unwrap_or(DEFAULT_VIRTUAL_TOKENS), seed)?;
    if let Init::From(dir) = init
        && let Err(error) = record::check_fit(&PromptDirectory::read(dir)?, model)
    {
        printer.warn(&format!(
            "{error}; its rows are only where learning begins, but may be no better than noise"
        ));
    }
    if let Init::Text(text) = init {
        let (n, taken) = (model.tokenizer.encode_plain(text)?.len(), start.n_virtual());
        if n > taken {
            printer.say(&format!(
                "the init has {n} tokens, of which the first {taken} are taken; --virtual-tokens {n} takes all"
            ));
        }
    }
    if let Some(asked) = n_virtual.filter(|&asked| asked != start.n_virtual()) {
        let found = start.n_virtual();
        printer.warn(&format!(
            "{init} has {found} virtual tokens, which are taken instead of the {asked} asked for"
        ));
    }
    Ok(start)
}

/// The most virtual tokens of demonstrations where nothing else is said; half of the model's context where that is less.
const MOST_SHOWN: usize = 128;

/// The demonstrations that the prompt begins as, if that is its init.
pub(super) fn shown(
    init: &Init,
    file: &TaskFile,
    (model, task): (&Model<Machine>, &Task),
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

/// The splits without training examples that rows began as: what they are, the rows would give away.
pub(super) fn without_shown(
    splits: Splits,
    shown: Option<&DemonstrationPrompt>,
    task: &Task,
) -> Result<Splits> {
    let Some(shown) = shown.filter(|_| task.method == Method::Prompt) else { return Ok(splits) };
    let is_shown = |row: &usize| shown.demonstrations.iter().any(|shown| shown.example == *row);
    let rest: Vec<usize> = (0..splits.train.n()).filter(|row| !is_shown(row)).collect();
    if rest.is_empty() {
        return Err(Given::wrong(
            "every training example is a demonstration, which leaves none to learn from",
        )
        .hint("use --method prefix, where an example does not see itself; or fewer --virtual-tokens")
        .into());
    }
    Ok(Splits { train: splits.train.take(&rest), ..splits })
}

/// The candidates that are asked for, none where it is one. What a flag or the task file states is not varied.
pub(super) fn tried(
    file: &TaskFile,
    (task, fields): (&Task, &Fields),
    model: &Model<Machine>,
    config: &TrainConfig,
    shown: Option<&DemonstrationPrompt>,
) -> Result<Vec<Tried>> {
    let n = file.train.candidates.map_or(1, CandidateCount::n);
    if config.survivors > n {
        let (survivors, candidates) = (config.survivors, count(n as u64));
        return Err(Given::wrong(format!(
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
            None => foreword::init::start(model, task, &how.init, how.n_virtual, how.seed)?,
        };
        let candidate = Candidate { start, learning_rate: how.learning_rate, seed: how.seed };
        anyhow::Ok(Tried { how, candidate })
    };
    variations(n, &stated).into_iter().map(candidate).collect()
}
