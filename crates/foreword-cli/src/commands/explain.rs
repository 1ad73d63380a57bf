//! `foreword explain`: the mathematics of prompt tuning on one text, with a prompt's real values.

use anyhow::Result;
use foreword::explain::{Prediction, Walkthrough, default_rate, walk};
use foreword::init::Sources;
use foreword::settings::{Init, Objective};
use foreword::{Classification, Dataset, PromptDirectory, SoftPrompt, Verbalizer};

use crate::args::{ExplainArgs, SourceArgs};
use crate::commands::quickstart;
use crate::exit::{Exit, Given};
use crate::printer::{Printer, Table};
use crate::resolve::prompt::{Asked, AskedFields, Ready, Verb};
use crate::wire::Explained;
use crate::words::{bytes, count, either, percent, visible};

/// Width of the longest bar.
const BAR: f64 = 30.0;

/// Runs the verb.
pub(crate) fn run(args: &ExplainArgs, printer: &mut Printer) -> Result<Exit> {
    let prompt = args.prompt.clone().unwrap_or_else(|| quickstart::OUT.into());
    if args.prompt.is_none() && !prompt.exists() {
        return Err(Given::wrong(format!("there is no prompt to explain: {} is not here", prompt.display()))
            .hint("`foreword quickstart` makes it; --prompt DIR takes another")
            .into());
    }
    let source = SourceArgs { prompt, model: args.model.clone() };
    let asked = Asked {
        verb: Verb::Classify,
        source: &source,
        task: &args.task,
        labels: args.labels.labels.as_ref(),
        fields: AskedFields::default(),
        objective: None,
        machine: &args.machine,
    };
    let mut ready = asked.resolve(None, printer)?;
    ready.task.text_field = None;
    if ready.root.is_empty() {
        return Err(Given::wrong("the bare model has no prompt to explain").hint("give --prompt DIR").into());
    }
    let text = args.text.clone().unwrap_or_else(|| quickstart::TEXT.to_owned());
    let data = Dataset::from_texts(vec![text.clone()])?;
    let examples = ready.task.examples(&ready.model, ready.n_virtual(), &data, None)?;
    let hidden = ready.model.backbone.spec().hidden;
    let soft = SoftPrompt::new(ready.root.clone(), ready.n_virtual(), hidden)?;
    let to = ready.task.classification()?;
    let (init, start) = init(&ready, &to.verbalizer, &source)?;
    let truth = truth(args, &to.verbalizer)?;
    let rate = args.learning_rate.unwrap_or_else(|| default_rate(&ready.model));
    let walkthrough = walk(&ready.model, &ready.task, &examples, truth, (&soft, &start), rate)?;

    printer.json(&Explained::of(&text, &to.verbalizer, truth, &soft, &init, &walkthrough))?;
    let story = Story { to, truth, init: &init, soft: &soft, walkthrough: &walkthrough };
    for step in story.steps() {
        printer.answer(&step)?;
    }
    Ok(Exit::Done)
}

/// The label that is taken for the true one.
fn truth(args: &ExplainArgs, labels: &Verbalizer) -> Result<usize> {
    let Some(name) = &args.label else { return Ok(labels.n() - 1) };
    labels.index(name).ok_or_else(|| {
        Given::wrong(format!("{name:?} is none of the prompt's labels"))
            .hint(format!("they are {}", either(labels.names())))
            .into()
    })
}

/// What the prompt began as, or a sentence of ours where that is not recorded or is gone.
fn init(ready: &Ready, labels: &Verbalizer, source: &SourceArgs) -> Result<(Init, SoftPrompt)> {
    let recorded = PromptDirectory::read(&source.prompt)?.passport.map(|passport| passport.training);
    let seed = recorded.as_ref().map_or(0, |training| training.seed);
    let init = recorded
        .and_then(|training| training.init.parse().ok())
        .filter(|init| !matches!(init, Init::From(_)));
    let init =
        init.unwrap_or_else(|| Init::Text(format!("Classify the text as {}.", either(labels.names()))));
    let sources = Sources::of(&ready.model, Some(labels));
    let start = sources.soft_prompt(&init, ready.n_virtual(), seed)?;
    Ok((init, start))
}

/// The walk-through in words.
struct Story<'a> {
    to: &'a Classification,
    truth: usize,
    init: &'a Init,
    soft: &'a SoftPrompt,
    walkthrough: &'a Walkthrough,
}

impl Story<'_> {
    fn steps(&self) -> [String; 9] {
        [
            self.input(),
            self.learnable(),
            self.combined(),
            self.output(),
            self.loss(),
            self.gradient(),
            self.update(),
            self.run(),
            self.costs(),
        ]
    }

    fn label(&self) -> &str {
        &self.to.verbalizer.names()[self.truth]
    }

    fn input(&self) -> String {
        let tokens = &self.walkthrough.tokens;
        let shown: Vec<String> = tokens.iter().map(|(_, text)| visible(text)).collect();
        format!("1  The input x, in {} tokens\n   {}\n", count(tokens.len() as u64), shown.join("|"))
    }

    fn learnable(&self) -> String {
        let (p, h) = (self.soft.n_virtual(), self.soft.hidden());
        let costs = &self.walkthrough.costs;
        format!(
            "2  The learnable prompt p, and the frozen model θ\n   p is {p} rows of {h} numbers, {} in all; θ is {} \
             numbers, which never change ({} as many)\n",
            count(costs.n_learned),
            count(costs.n_frozen),
            count(costs.n_frozen / costs.n_learned.max(1)),
        )
    }

    fn combined(&self) -> String {
        let (p, h, t) = (self.soft.n_virtual(), self.soft.hidden(), self.walkthrough.tokens.len());
        format!(
            "3  What the model reads: [p ; E(x)]\n   E(x) is the model's own embedding of x, {t} × {h}; with p it is {} × \
             {h}\n",
            p + t
        )
    }

    fn output(&self) -> String {
        let (without, with) = (&self.walkthrough.without, &self.walkthrough.with);
        let mut table = Table::new(["", "f(E(x); θ)", "f([p ; E(x)]; θ)"]);
        let next = |prediction: &Prediction, i: usize| {
            let (token, p) = &prediction.next[i];
            format!("{} {:>6}", visible(token), percent(*p))
        };
        for i in 0..without.next.len() {
            table.row([format!("   next token, {}", i + 1), next(without, i), next(with, i)]);
        }
        for (i, name) in self.to.verbalizer.names().iter().enumerate() {
            let p = |prediction: &Prediction| percent(prediction.probabilities[i]);
            table.row([format!("   p({name})"), p(without), p(with)]);
        }
        let among = match self.to.objective {
            Objective::Label => "p(label) is among the labels: the softmax of their log-likelihoods",
            Objective::Lm => "p(label) is among all texts: the product of its tokens' probabilities",
        };
        format!("4  What it says next, without p and with it\n{table}\n   {among}\n")
    }

    fn loss(&self) -> String {
        let with = &self.walkthrough.with;
        let p = with.probabilities[self.truth];
        format!(
            "5  The loss, for the true label y = {}\n   L(p) = −log p(y) = −log {p:.4} = {:.4}\n",
            self.label(),
            self.walkthrough.loss
        )
    }

    fn gradient(&self) -> String {
        let norms = &self.walkthrough.gradient_norms;
        let longest = norms.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let digits = norms.len().to_string().len();
        let mut text = "6  The gradient ∂L/∂p, by virtual token; ∂L/∂θ is never formed\n".to_owned();
        for (i, norm) in norms.iter().enumerate() {
            let bar = "█".repeat((BAR * norm / longest).round() as usize);
            let pad = digits - (i + 1).to_string().len();
            text.push_str(&format!("   ‖∂L/∂p{}‖ {:pad$}{norm:>8.2e} {bar}\n", subscript(i + 1), ""));
        }
        text
    }

    fn update(&self) -> String {
        let update = &self.walkthrough.update;
        format!(
            "7  One update: p ← p − η ∂L/∂p\n   η = {:.3e}, chosen to move the numbers of p by {:.2e} (root mean \
             square)\n   L(p) before {:.4}, after {:.4}\n",
            update.rate, update.change, update.before, update.after
        )
    }

    fn run(&self) -> String {
        let mut table = Table::new(["   updates", "L(p)", "p(y)", "‖p − p₀‖"]);
        for row in &self.walkthrough.run {
            let cells =
                [format!("{:.4}", row.loss), percent(row.probability), format!("{:.3}", row.distance)];
            table.row(std::iter::once(format!("   {}", row.step)).chain(cells));
        }
        format!(
            "8  The same update again and again on this one text, from p₀ = {}\n{table}\n   A training run does this \
             with many texts, so that p serves those that it has not seen.\n",
            self.init
        )
    }

    fn costs(&self) -> String {
        let costs = &self.walkthrough.costs;
        let mut table = Table::new(["", "prompt tuning", "fine-tuning"]);
        table.row(["   numbers that are learned".into(), count(costs.n_learned), count(costs.n_frozen)]);
        table.row(["   stored for each task".into(), bytes(costs.prompt_bytes), bytes(costs.model_bytes)]);
        table.row([
            "   gradient and AdamW's moments".into(),
            bytes(costs.prompt_optimizer_bytes),
            bytes(costs.model_optimizer_bytes),
        ]);
        format!(
            "9  Against fine-tuning, which learns θ itself\n{table}\n   One copy of the model takes the room of {} such \
             prompts, and all of them work with the same model.",
            count(costs.prompts_per_model())
        )
    }
}

/// `12` as `₁₂`.
fn subscript(n: usize) -> String {
    n.to_string().chars().map(|c| char::from_u32(c as u32 - '0' as u32 + '₀' as u32).unwrap_or(c)).collect()
}
