//! The sentences of the walk-through, shared by the terminal and the page.

use foreword::explain::{Prediction, Walkthrough};
use foreword::settings::{Init, Objective, Placement};
use foreword::{Classification, SoftPrompt};

use foreword::LoadedPrompt;
use foreword::display::{count, in_a_line, number, percent};

/// Maximum number of labels for which the sum is written out.
const MOST_TERMS: usize = 3;

/// The prompt before its training.
pub(super) struct Began {
    pub(super) init: Init,
    /// Whether the prompt records it.
    pub(super) is_recorded: bool,
}

/// One example and everything to print about it.
pub(super) struct Story<'a> {
    pub(super) ready: &'a LoadedPrompt,
    pub(super) to: &'a Classification,
    pub(super) text: &'a str,
    pub(super) truth: usize,
    pub(super) began: &'a Began,
    pub(super) soft: &'a SoftPrompt,
    /// Whether the update has the default step size of a run.
    pub(super) usual_rate: bool,
    pub(super) told: &'a Walkthrough,
}

/// One step, without its tables and drawings.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) title: String,
    /// The formulas with the values of this text; each is one line, or next to the others if there is space.
    pub(super) formulas: Vec<String>,
    /// The explanation.
    pub(super) sentences: Vec<String>,
}

impl Step {
    fn new<const N: usize>(
        title: &str,
        formulas: [String; N],
        sentences: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            title: title.to_owned(),
            formulas: formulas.into(),
            sentences: sentences.into_iter().collect(),
        }
    }
}

impl Story<'_> {
    /// The nine steps.
    pub(super) fn steps(&self) -> [Step; 9] {
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

    /// The true label.
    pub(super) fn label(&self) -> &str {
        &self.to.verbalizer.names()[self.truth]
    }

    /// The names of the labels.
    pub(super) fn labels(&self) -> &[String] {
        self.to.verbalizer.names()
    }

    /// P, H and T.
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.soft.n_virtual(), self.soft.width(), self.told.tokens.len())
    }

    /// The model's name.
    pub(super) fn model(&self) -> &str {
        self.ready.model.backbone.name()
    }

    /// The placement of the soft prompt.
    pub(super) fn placement(&self) -> Placement {
        self.ready.task.placement
    }

    /// The model's input as a symbol.
    pub(super) fn read(&self) -> &'static str {
        match self.placement() {
            Placement::Front => "[p ; E(x)]",
            Placement::AfterBos => "[E(x₁) ; p ; E(x₂ …)]",
            Placement::System => "[E(x₁ …) ; p ; E(… x)]",
            Placement::Suffix => "[E(x) ; p]",
        }
    }

    fn input(&self) -> Step {
        let mut sentences = Vec::new();
        let mut around =
            format!("The template {:?} is put around the text", self.ready.task.template.source());
        if let Some(chat) = &self.ready.task.chat {
            sentences.push(format!(
                "{around}, which makes it a user's message, and around that the model's own chat template: {:?}.",
                chat.shown()
            ));
            around = "The assistant is to answer next".to_owned();
        }
        sentences.push(format!(
            "{around}, and the model reads all of it as {} tokens, which are the pieces \
             of text in its vocabulary. (␣ is a space, ⏎ the end of a line.)",
            count(self.told.tokens.len() as u64),
        ));
        if let (Some(bos), Some((first, text))) = (self.ready.model.tokenizer.bos(), self.told.tokens.first())
            && bos == *first
        {
            sentences.push(format!("{text} stands at the beginning of every text."));
        }
        let formulas = [format!("x = {}", quote(self.text)), format!("y = {}", in_a_line(self.label()))];
        Step::new("The text x and its true label y", formulas, sentences)
    }

    fn learnable(&self) -> Step {
        let (p, h, _) = self.sizes();
        let costs = &self.told.costs;
        let (learned, frozen) = (count(costs.n_learned), count(costs.n_frozen));
        let times = (costs.n_frozen as f64 / costs.n_learned.max(1) as f64).round();
        Step::new(
            "The learnable prompt p, and the frozen model θ",
            [format!("p: {p} × {h} = {learned} numbers"), format!("θ: {frozen} numbers")],
            [format!(
                "p is {}: rows of {h} numbers, as wide as the rows by which the model knows its own tokens. They are \
                 all that is learned. θ, the weights of {}, has {} times as many, and none of them ever changes.",
                counted(p, "virtual token"),
                self.model(),
                count(times as u64),
            )],
        )
    }

    fn combined(&self) -> Step {
        let (p, h, t) = self.sizes();
        let place = match self.placement() {
            Placement::Front => "stand before them",
            Placement::AfterBos => "stand behind the first of them",
            Placement::System => "stand at the beginning of the system message",
            Placement::Suffix => "stand behind them",
        };
        Step::new(
            "What the model reads: p together with E(x)",
            [format!("{}: ({p} + {t}) × {h} = {} × {h}", self.read(), p + t)],
            [format!(
                "E looks each token of x up in the model's table of embeddings, which gives {t} rows of {h} numbers. The \
                 rows of p {place}, as if they were words too, but words that are in no vocabulary."
            )],
        )
    }

    fn output(&self) -> Step {
        let (name, objective) = (in_a_line(self.label()), self.to.objective);
        let strings = self.to.verbalizer.strings();
        let logs = &self.told.with.log_likelihoods;
        let log = |i: usize| minus(&format!("{:.3}", logs[i]));
        let given = format!("p({name}) = ");
        let (formula, among) = match objective {
            Objective::Label => {
                let sum = match logs.len() {
                    n if n <= MOST_TERMS => {
                        let terms: Vec<String> = (0..n).map(|i| format!("e^{}", log(i))).collect();
                        format!("({})", terms.join(" + "))
                    }
                    n => format!("(the sum of {n} such terms)"),
                };
                (format!("{given}e^{} / {sum}", log(self.truth)), "is its share among the labels")
            }
            Objective::Lm => {
                (format!("{given}e^{}", log(self.truth)), "is the probability of its whole text")
            }
        };
        let probability = percent(self.told.with.probabilities[self.truth]);
        Step::new(
            "What the model says next, without p and with it",
            [format!("{formula} = {probability}")],
            [
                "f(x; θ) gives each token of the vocabulary a probability of coming next. The likeliest tokens need not \
                 be labels."
                    .to_owned(),
                format!(
                    "The label {name} is written {:?}, and log f of that is {} with p. Its probability p({name}), not to \
                     be taken for the prompt p, {among}.",
                    strings[self.truth],
                    log(self.truth),
                ),
                self.changed(),
            ],
        )
    }

    /// Whether the prompt changed the prediction.
    fn changed(&self) -> String {
        let name = |prediction: &Prediction| in_a_line(&self.labels()[prediction.label()]);
        let (without, with) = (name(&self.told.without), name(&self.told.with));
        if without == with {
            format!("The likeliest label is {with}, with p as without it.")
        } else {
            format!("The likeliest label without p is {without}; with p it is {with}.")
        }
    }

    fn loss(&self) -> Step {
        let p = self.told.with.probabilities[self.truth];
        // Enough digits to verify the logarithm.
        let shown = if p < 0.01 { format!("{p:.3e}") } else { format!("{p:.4}") };
        Step::new(
            "The loss",
            [format!("L(p) = −log p(y) = −log {shown} = {:.4}", self.told.loss)],
            ["The loss says how wrong the model is, as a number to be made small: 0 where it is certain of the true \
              label, 0.69 where it gives it 50 %, and more without end the less likely it finds it."
                .to_owned()],
        )
    }

    fn gradient(&self) -> Step {
        let n = self.told.gradient_norms.len();
        let formula = match n {
            1 => "∂L/∂p = ∂L/∂p₁".to_owned(),
            n => format!("∂L/∂p = (∂L/∂p₁ … ∂L/∂p{})", subscript(n)),
        };
        Step::new(
            "The gradient, and only that of p",
            [formula],
            ["The gradient goes back through the frozen model and says for each number of p how the loss changes with it. \
              The length ‖∂L/∂pᵢ‖ is how much hangs on virtual token i for this text. ∂L/∂θ is never formed: θ is not \
              going to move."
                .to_owned()],
        )
    }

    fn update(&self) -> Step {
        let update = &self.told.update;
        let usual = if self.usual_rate { ", about as far as a step of training moves them" } else { "" };
        Step::new(
            "One update of p",
            [
                "p ← p − η ∂L/∂p".to_owned(),
                format!("L(p): {:.4} before, {:.4} after", update.before, update.after),
            ],
            [format!(
                "p goes a little against its gradient, the way in which the loss falls. Here η is {}, chosen so that the \
                 numbers of p move by {} (root mean square){usual}.",
                number(update.rate),
                number(update.change)
            )],
        )
    }

    fn run(&self) -> Step {
        let last = self.told.run.last().map_or(0, |row| row.step);
        let began = match &self.began.init {
            Init::Text(text) => format!("the embeddings of the words {}", quote(text)),
            Init::Labels => "the embeddings of the labels' words".to_owned(),
            Init::Vocab => "the embeddings of words drawn by chance".to_owned(),
            Init::Random => "numbers drawn by chance".to_owned(),
            Init::Demonstrations => "the embeddings of training examples with their labels".to_owned(),
            Init::From(path) => format!("the rows of the prompt {}", path.display()),
        };
        let whose = if self.began.is_recorded {
            "what this prompt was before its training"
        } else {
            "a default init, since this prompt's own is not recorded"
        };
        Step::new(
            "The same update again and again",
            [format!("p₀ → p₁ → … → p{}", subscript(last as usize))],
            [
                format!(
                    "From p₀, {whose}: {began}. From there it learns this text alone; ‖p − p₀‖ is how far it has moved."
                ),
                "A training run does this with many texts in turn, so that p serves those that it has not seen."
                    .to_owned(),
            ],
        )
    }

    fn costs(&self) -> Step {
        Step::new(
            "Against fine-tuning, which learns θ itself",
            ["prompt tuning: min over p of L".to_owned(), "fine-tuning: min over θ of L".to_owned()],
            [format!(
                "One more copy of the model takes the room of {}, and all of them work with the same model.",
                counted(self.told.costs.prompts_per_model(), "such prompt"),
            )],
        )
    }
}

/// A text on one line in quotation marks.
fn quote(text: &str) -> String {
    format!("\"{}\"", in_a_line(text))
}

/// `1 token`, `20 tokens`.
fn counted(n: impl TryInto<u64>, what: &str) -> String {
    let n = count(n);
    if n == "1" { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// `-1.2` as `−1.2`.
fn minus(number: &str) -> String {
    number.replace('-', "−")
}

/// `12` as `₁₂`.
pub(super) fn subscript(n: usize) -> String {
    n.to_string().chars().map(|c| char::from_u32(c as u32 - '0' as u32 + '₀' as u32).unwrap_or(c)).collect()
}
