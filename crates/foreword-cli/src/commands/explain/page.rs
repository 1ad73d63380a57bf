//! The walk-through as one self-contained HTML page, without scripts or other files.

use foreword::explain::Prediction;
use foreword::settings::Placement;
use foreword::{Error, Result};
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use super::story::{Step, Story, subscript};
use foreword::display::{bytes, count, in_a_line, number, percent, visible};

/// The page around the values.
const TEMPLATE: &str = include_str!("page.html");
/// Width of a drawing in its own units: those of a phone's screen, so that its text is legible there.
const WIDTH: f64 = 360.0;
/// Height of a drawing without its labels.
const HEIGHT: f64 = 110.0;
/// Space for the labels to the left of a drawing.
const LEFT: f64 = 44.0;
/// Space for the labels above a drawing.
const TOP: f64 = 16.0;

/// The page. All external text is escaped.
pub(super) fn html(story: &Story<'_>) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment
        .add_template("page", TEMPLATE)
        .map_err(|error| Error::other(error).context("the page's template"))?;
    let template = environment
        .get_template("page")
        .map_err(|error| Error::other(error).context("the page's template"))?;
    Ok(template.render(Serde(Page::of(story))).map_err(|error| Error::other(error).context("the page"))?
        + "\n")
}

/// A number with its location in the `--json` output: exact and as displayed.
#[derive(Debug, Serialize)]
struct Number {
    /// A JSON pointer.
    name: String,
    value: String,
    shown: String,
}

impl Number {
    fn new(name: impl Into<String>, value: &impl ToString, shown: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.to_string(), shown: shown.into() }
    }

    fn loss(name: impl Into<String>, loss: f64) -> Self {
        Self::new(name, &loss, format!("{loss:.4}"))
    }
}

#[derive(Debug, Serialize)]
struct Page {
    text: String,
    label: String,
    model: String,
    n_learned: String,
    n_frozen: String,
    steps: Vec<Told>,
    tokens: Vec<Token>,
    parts: Vec<Part>,
    virtual_tokens: Number,
    hidden: Number,
    read: &'static str,
    next: Vec<[Next; 2]>,
    labels: Vec<Label>,
    loss: Loss,
    gradient: Bars,
    update: Vec<Shown>,
    run: Curve,
    costs: Vec<[Cost; 2]>,
    prompts_per_model: Number,
    learned_share: String,
    learned_width: f64,
}

#[derive(Debug, Serialize)]
struct Told {
    title: String,
    formulas: Vec<String>,
    sentences: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Token {
    text: String,
    id: Number,
}

/// Rows of the model's input.
#[derive(Debug, Serialize)]
struct Part {
    name: &'static str,
    rows: usize,
    is_learned: bool,
    x: f64,
    width: f64,
}

#[derive(Debug, Serialize)]
struct Next {
    token: String,
    p: Number,
    width: f64,
}

#[derive(Debug, Serialize)]
struct Label {
    name: String,
    text: String,
    is_true: bool,
    said: [Said; 2],
}

#[derive(Debug, Serialize)]
struct Said {
    p: Number,
    log: Number,
    width: f64,
}

/// The curve of −log p over p, with this text's point.
#[derive(Debug, Serialize)]
struct Loss {
    number: Number,
    line: String,
    x: f64,
    y: f64,
    highest: String,
}

#[derive(Debug, Serialize)]
struct Bars {
    highest: String,
    bars: Vec<Bar>,
}

#[derive(Debug, Serialize)]
struct Bar {
    of: String,
    n: usize,
    norm: Number,
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    /// Whether its number is printed below it; if there are many, only some have space.
    is_named: bool,
}

/// A number with a caption and a bar.
#[derive(Debug, Serialize)]
struct Shown {
    what: &'static str,
    number: Number,
    width: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Curve {
    highest: String,
    last: u64,
    line: String,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    x: f64,
    y: f64,
    step: Number,
    loss: Number,
    probability: Number,
    distance: Number,
}

#[derive(Debug, Serialize)]
struct Cost {
    what: &'static str,
    number: Number,
}

impl Page {
    fn of(story: &Story<'_>) -> Self {
        let told = story.told;
        let (p, h, _) = story.sizes();
        let costs = &told.costs;
        let share = costs.n_learned as f64 / costs.n_frozen.max(1) as f64;
        Self {
            text: in_a_line(story.text),
            label: in_a_line(story.label()),
            model: story.model().to_owned(),
            n_learned: count(costs.n_learned),
            n_frozen: count(costs.n_frozen),
            steps: story.steps().map(Told::of).into(),
            tokens: tokens(story),
            parts: parts(story),
            virtual_tokens: Number::new("/virtual_tokens", &p, count(p as u64)),
            hidden: Number::new("/hidden", &h, count(h as u64)),
            read: story.read(),
            next: next(story),
            labels: labels(story),
            loss: loss(story),
            gradient: gradient(&told.gradient_norms),
            update: update(story),
            run: run(story),
            costs: cost_rows(story),
            prompts_per_model: Number::new(
                "/costs/prompts_per_model",
                &costs.prompts_per_model(),
                count(costs.prompts_per_model()),
            ),
            learned_share: number(100.0 * share),
            // Thick enough to see.
            learned_width: rounded((WIDTH * share).clamp(1.0, WIDTH)),
        }
    }
}

impl Told {
    fn of(step: Step) -> Self {
        Self { title: step.title, formulas: step.formulas, sentences: step.sentences }
    }
}

/// Rounds to two decimals; more are invisible on a screen.
fn rounded(length: f64) -> f64 {
    (100.0 * length).round() / 100.0
}

/// A key of an object as a component of a JSON pointer.
fn key(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn tokens(story: &Story<'_>) -> Vec<Token> {
    let token = |(i, (id, text)): (usize, &(u32, String))| Token {
        text: visible(text),
        id: Number::new(format!("/token_ids/{i}"), id, id.to_string()),
    };
    story.told.tokens.iter().enumerate().map(token).collect()
}

/// [p ; E(x)] as a strip, with the width of each part proportional to its rows.
fn parts(story: &Story<'_>) -> Vec<Part> {
    let (p, _, t) = story.sizes();
    let parts = match story.placement() {
        Placement::Front => vec![("p", p, true), ("E(x)", t, false)],
        Placement::AfterBos | Placement::System => {
            let above = story.ready.task.leading(&story.ready.model).len();
            vec![("E(x₁)", above, false), ("p", p, true), ("E(x₂ …)", t.saturating_sub(above), false)]
        }
        Placement::Suffix => vec![("E(x)", t, false), ("p", p, true)],
    };
    let unit = WIDTH / (p + t) as f64;
    let mut x = 0.0;
    let part = |(name, rows, is_learned): (&'static str, usize, bool)| {
        let (left, width) = (x, unit * rows as f64);
        x += width;
        Part { name, rows, is_learned, x: rounded(left), width: rounded(width) }
    };
    parts.into_iter().map(part).collect()
}

fn next(story: &Story<'_>) -> Vec<[Next; 2]> {
    let told = story.told;
    let cell = |said: &str, prediction: &Prediction, i: usize| {
        let (token, p) = &prediction.next[i];
        Next {
            token: visible(token),
            p: Number::new(format!("/{said}/next_tokens/{i}/1"), p, percent(*p)),
            width: rounded(100.0 * p),
        }
    };
    let n = told.without.next.len().min(told.with.next.len());
    (0..n).map(|i| [cell("without", &told.without, i), cell("with", &told.with, i)]).collect()
}

fn labels(story: &Story<'_>) -> Vec<Label> {
    let (names, strings) = (story.labels(), story.to.verbalizer.strings());
    let said = |said: &str, prediction: &Prediction, i: usize| {
        let (p, log) = (prediction.probabilities[i], prediction.log_likelihoods[i]);
        let name = key(&names[i]);
        Said {
            p: Number::new(format!("/{said}/probabilities/{name}"), &p, percent(p)),
            log: Number::new(
                format!("/{said}/log_likelihoods/{name}"),
                &log,
                format!("{log:.3}").replace('-', "−"),
            ),
            width: rounded(100.0 * p),
        }
    };
    let label = |i: usize| Label {
        name: in_a_line(&names[i]),
        text: visible(&strings[i]),
        is_true: i == story.truth,
        said: [said("without", &story.told.without, i), said("with", &story.told.with, i)],
    };
    (0..names.len()).map(label).collect()
}

fn loss(story: &Story<'_>) -> Loss {
    let (told, probability) = (story.told, story.told.with.probabilities[story.truth]);
    let highest = told.loss.max(4.0);
    let place = |p: f64, loss: f64| {
        (rounded(LEFT + (WIDTH - LEFT - 10.0) * p), rounded(TOP + HEIGHT * (1.0 - loss / highest)))
    };
    // Start at the loss at the top; points are closer together where the curve is steep.
    let points = (0..=60).map(|i| {
        let loss = highest * (1.0 - f64::from(i) / 60.0);
        let (x, y) = place((-loss).exp(), loss);
        format!("{x},{y}")
    });
    let (x, y) = place(probability, told.loss);
    let number = Number::loss("/loss", told.loss);
    Loss { number, line: points.collect::<Vec<_>>().join(" "), x, y, highest: format!("{highest:.1}") }
}

fn gradient(norms: &[f64]) -> Bars {
    let highest = norms.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let unit = (WIDTH - LEFT) / norms.len().max(1) as f64;
    // A number below takes about 16 units.
    let every = (16.0 / unit).ceil().max(1.0) as usize;
    let bar = |(i, &norm): (usize, &f64)| {
        let height = HEIGHT * norm / highest;
        Bar {
            of: subscript(i + 1),
            n: i + 1,
            norm: Number::new(format!("/gradient_norms/{i}"), &norm, number(norm)),
            x: rounded(LEFT + unit * (i as f64 + 0.1)),
            y: rounded(TOP + HEIGHT - height),
            width: rounded(0.8 * unit),
            height: rounded(height),
            is_named: i == 0 || (i + 1).is_multiple_of(every),
        }
    };
    Bars { highest: number(highest), bars: norms.iter().enumerate().map(bar).collect() }
}

fn update(story: &Story<'_>) -> Vec<Shown> {
    let update = &story.told.update;
    let highest = update.before.max(update.after).max(f64::MIN_POSITIVE);
    let loss = |what, name, loss: f64| Shown {
        what,
        number: Number::loss(name, loss),
        width: Some(rounded(100.0 * loss / highest)),
    };
    let plain = |what, name, value: f64| Shown {
        what,
        number: Number::new(name, &value, number(value)),
        width: None,
    };
    vec![
        loss("L(p) before", "/update/before", update.before),
        loss("L(p) after", "/update/after", update.after),
        plain("η", "/update/rate", update.rate),
        plain("change of the numbers of p (root mean square)", "/update/change", update.change),
    ]
}

fn run(story: &Story<'_>) -> Curve {
    let rows = &story.told.run;
    let highest = rows.iter().map(|row| row.loss).fold(f64::MIN_POSITIVE, f64::max);
    let last = rows.last().map_or(0, |row| row.step);
    let (left, right) = (LEFT + 6.0, WIDTH - 10.0);
    let row = |(i, row): (usize, &foreword::explain::RunRow)| {
        let name = |field: &str| format!("/run/{i}/{field}");
        Row {
            x: rounded(left + (right - left) * row.step as f64 / last.max(1) as f64),
            y: rounded(TOP + HEIGHT * (1.0 - row.loss / highest)),
            step: Number::new(name("step"), &row.step, row.step.to_string()),
            loss: Number::loss(name("loss"), row.loss),
            probability: Number::new(name("probability"), &row.probability, percent(row.probability)),
            distance: Number::new(name("distance"), &row.distance, format!("{:.3}", row.distance)),
        }
    };
    let rows: Vec<Row> = rows.iter().enumerate().map(row).collect();
    let points: Vec<String> = rows.iter().map(|row| format!("{},{}", row.x, row.y)).collect();
    Curve { highest: format!("{highest:.4}"), last, line: points.join(" "), rows }
}

fn cost_rows(story: &Story<'_>) -> Vec<[Cost; 2]> {
    let costs = &story.told.costs;
    let pair = |what, show: fn(u64) -> String, names: [&str; 2], values: [u64; 2]| {
        let cost = |i: usize| Cost {
            what,
            number: Number::new(format!("/costs/{}", names[i]), &values[i], show(values[i])),
        };
        [cost(0), cost(1)]
    };
    vec![
        pair("numbers that are learned", count, ["learned", "frozen"], [costs.n_learned, costs.n_frozen]),
        pair(
            "stored for each task",
            bytes,
            ["prompt_bytes", "model_bytes"],
            [costs.prompt_bytes, costs.model_bytes],
        ),
        pair(
            "memory of gradient and optimizer",
            bytes,
            ["prompt_optimizer_bytes", "model_optimizer_bytes"],
            [costs.prompt_optimizer_bytes, costs.model_optimizer_bytes],
        ),
    ]
}
