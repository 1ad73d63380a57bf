//! `foreword inspect`: the contents of a prompt directory, and its rows compared with the model's vocabulary.

use crate::command_line::quoted_path;
use foreword::Result;
use foreword::device::Device;
use foreword::format::{CalibrationRecord, ChatRecord, TaskRecord};
use foreword::init::Sources;
use foreword::inspect::{InspectedRow, Inspection, inspect};
use foreword::kernels::ComputeDtype;
use foreword::record::{self, Warning};
use foreword::settings::{Init, Joining, Method, Objective, Placement, TaskKind};
use foreword::{Model, Passport, PromptDirectory, Resources, SoftPrompt, Verbalizer};
use serde_json::Value;

use crate::args::InspectArgs;
use crate::exit::Exit;
use crate::printer::{Printer, Table};
use crate::report::recorded;
use foreword::UserError;
use foreword::display::{WAYWARD, count, in_a_line, learned, visible};
use foreword::events::inspected;
use foreword::prompt::open::recorded_task;
use foreword::prompt::{describe, recorded_name};
use foreword::source::{files_at_hand, ignoring};
use foreword::verdict::imported_from;

/// Maximum number of labels with a column each; beyond it, one column names the nearest label.
const MOST_COLUMNS: usize = 4;
/// The settings to print, in this order.
const SETTINGS: [&str; 10] = [
    "batch_size",
    "learning_rate",
    "schedule",
    "warmup",
    "max_grad_norm",
    "weight_decay",
    "keep",
    "keep_by",
    "class_weights",
    "patience",
];

/// Runs the verb.
pub(crate) fn run(args: &InspectArgs, printer: &Printer) -> Result<Exit> {
    if !args.prompt.exists() {
        return Err(UserError::new(format!("there is no prompt directory {}", args.prompt.display()))
            .hint("`foreword quickstart` and `foreword train` make one")
            .into());
    }
    let directory = PromptDirectory::read(&args.prompt)?;
    let model = model(args, &directory, printer)?;
    let labels = match (&model, &directory.passport) {
        (Some(model), Some(passport)) if !passport.task.labels.is_empty() => {
            let task = recorded_task(&args.prompt, &directory, model).ok();
            task.and_then(|task| task.verbalizer().cloned())
        }
        _ => None,
    };
    // Keys and values are not in the space of the vocabulary.
    let model = model.filter(|_| directory.method() == Method::Prompt);
    let inspection = model.as_ref().map(|model| {
        let began = began(model, &directory, labels.as_ref());
        inspect(model, &directory.rows, began.as_ref(), labels.as_ref(), args.top)
    });

    let name = model.as_ref().map_or("", |model| model.backbone.name());
    let rows = inspection.as_ref().map(|inspection| (name, inspection));
    printer.json(&inspected(&args.prompt.display().to_string(), &directory, rows, labels.as_ref()))?;
    printer.answer(&heading(args, &directory))?;
    match &directory.passport {
        Some(passport) => {
            printer.answer(&facts(passport))?;
            printer.answer(&peft(args, &directory))?;
            printer.answer(&format!("\n{}", recorded(passport)))?;
        }
        None => printer.answer(&without_passport(args, &directory))?,
    }
    match rows {
        Some((name, inspection)) => {
            printer.answer(&format!("\n{}", beside(name, inspection, labels.as_ref())))?;
            if args.top > 0 {
                printer.answer(&format!("\n{WAYWARD}"))?;
            }
        }
        None if directory.method() == Method::Prefix => printer.answer(
            "\nIts keys and values belong to the layers of the model; they can't be compared with its vocabulary.",
        )?,
        None => printer.answer(
            "\nThe model is not at hand; with --model DIR, its rows are set beside the model's vocabulary.",
        )?,
    }
    Ok(Exit::Done)
}

/// The given model, or the prompt's own if it is available locally.
fn model(args: &InspectArgs, directory: &PromptDirectory, printer: &Printer) -> Result<Option<Model>> {
    // If no device is set.
    let (device, dtype) = (Device::Cpu, ComputeDtype::F32);
    let ignored_config_keys = args.ignore_config.keys.clone();
    let resources =
        Resources { device, dtype, ignored_config_keys, on_this_thread: true, ..Resources::default() };
    let resources = resources.with_ignored_keys_of(Some(directory));
    let model = if let Some(given) = &args.model {
        Model::open_with(given, &resources, printer)?
    } else {
        let Some(name) = recorded_name(directory) else { return Ok(None) };
        let Some(files) = files_at_hand(&name) else { return Ok(None) };
        let files = ignoring(files, &name, &resources.ignored_config_keys)?;
        Model::load(&files, &name, &resources, printer)?
    };
    match record::check_fit(directory, &model) {
        Ok(warnings) => {
            for warning in warnings.iter().filter(|warning| **warning != Warning::NoPassport) {
                printer.warn(&describe(warning));
            }
            Ok(Some(model))
        }
        // Another model with the bundled one's name, which was not requested.
        Err(_) if args.model.is_none() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The initial rows, if the passport allows them to be recreated.
fn began(model: &Model, directory: &PromptDirectory, labels: Option<&Verbalizer>) -> Option<SoftPrompt> {
    let training = &directory.passport.as_ref()?.training;
    let init: Init = training.init.parse().ok()?;
    if let Init::From(_) = init {
        // A name without its location.
        return None;
    }
    Sources::of(model, labels).soft_prompt(&init, directory.rows.n_virtual(), training.seed).ok()
}

fn heading(args: &InspectArgs, directory: &PromptDirectory) -> String {
    let (p, w) = (directory.rows.n_virtual(), directory.rows.width());
    let what = learned(directory.method());
    format!("{}: a {what} of {p} virtual tokens × {w} numbers\n", args.prompt.display())
}

/// Prints the passport.
fn facts(passport: &Passport) -> String {
    let Passport { task, training, .. } = passport;
    let field = |what: &str, name: &Option<String>| name.as_ref().map(|name| format!("{what} in {name:?}"));
    let fields = [("text", &task.text_field), ("label", &task.label_field), ("target", &task.target_field)];
    let fields: Vec<String> = fields.into_iter().filter_map(|(what, name)| field(what, name)).collect();
    let labels = task.labels.iter().map(|(name, text)| format!("{} → {text:?}", in_a_line(name)));
    let examples = |split| training.data.get(split).map(|data| format!("{} {split}", count(data.examples)));
    let data: Vec<String> = ["train", "dev", "test"].into_iter().filter_map(examples).collect();
    let lines = [
        ("model", model_in_words(passport)),
        (
            "task",
            if fields.is_empty() {
                task.kind.to_string()
            } else {
                format!("{}; {}", task.kind, fields.join(", "))
            },
        ),
        (if task.chat.is_some() { "message" } else { "template" }, format!("{:?}", task.template)),
        ("chat", task.chat.as_ref().map(written).unwrap_or_default()),
        ("labels", labels.collect::<Vec<_>>().join(", ")),
        ("joining", joining(task)),
        (
            "length",
            format!(
                "at most {} tokens of template, text and {}",
                count(task.max_length as u64),
                truth(task.kind)
            ),
        ),
        (
            "placement",
            format!(
                "{}: the {} {}",
                task.placement,
                learned(training.method),
                place(task.placement, task.kind)
            ),
        ),
        ("objective", format!("{}: {}", task.objective, loss(task.objective, task.kind))),
        ("data", if data.is_empty() { String::new() } else { format!("{} examples", data.join(", ")) }),
        ("init", in_a_line(&training.init)),
        ("steps", steps(passport)),
        ("settings", settings(passport)),
        ("corrected", passport.calibration.as_ref().map_or_else(String::new, corrected)),
        ("made by", format!("Foreword {}", passport.foreword_version)),
    ];
    let lines: Vec<String> =
        lines.into_iter().filter(|(_, is)| !is.is_empty()).map(|(what, is)| line(what, &is)).collect();
    lines.join("\n")
}

/// How labels or targets are joined to the text, if as in earlier versions.
fn joining(task: &TaskRecord) -> String {
    match task.joining {
        Joining::Whole => String::new(),
        Joining::Apart => format!(
            "{}: each {} is tokenised apart from the text, as earlier versions did",
            task.joining,
            truth(task.kind)
        ),
    }
}

fn line(what: &str, is: &str) -> String {
    format!("{what:<9} {is}")
}

fn model_in_words(passport: &Passport) -> String {
    let base = &passport.base_model;
    let number = |key| base.spec.get(key).and_then(Value::as_u64);
    let sizes = [("layers", "layers"), ("hidden", "wide"), ("vocab", "tokens in the vocabulary")];
    let sizes = sizes.into_iter().filter_map(|(key, unit)| Some(format!("{} {unit}", count(number(key)?))));
    let dtype = format!("stored as {}", base.embeddings.dtype);
    let ignored = Some(&base.ignored_config_keys).filter(|keys| !keys.is_empty());
    let ignored = ignored.map(|keys| format!("without {} of its configuration", keys.join(", ")));
    let described: Vec<String> = sizes.chain([dtype]).chain(ignored).collect();
    format!("{}: {}", base.name, described.join(", "))
}

fn place(placement: Placement, kind: TaskKind) -> String {
    match placement {
        Placement::Front => "stands before everything, as in PEFT".to_owned(),
        Placement::AfterBos => "stands after the BOS token".to_owned(),
        Placement::System => "stands at the beginning of the system message".to_owned(),
        Placement::Suffix => format!("stands between the template's end and the {}", truth(kind)),
    }
}

fn loss(objective: Objective, kind: TaskKind) -> &'static str {
    match (objective, kind) {
        (Objective::Label, _) => "the true label against the others",
        (Objective::Lm, TaskKind::Classification) => "the text of the true label against all texts",
        (Objective::Lm, TaskKind::Generation) => "the target and its end against all texts",
    }
}

/// The text around a message.
fn written(chat: &ChatRecord) -> String {
    format!("in the model's chat template: {:?}", format!("{}{{message}}{}", chat.before, chat.after))
}

/// The word for what follows the template.
fn truth(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Classification => "label",
        TaskKind::Generation => "target",
    }
}

fn steps(passport: &Passport) -> String {
    let training = &passport.training;
    if let Some(format) = imported_from(passport) {
        return format!("not known: it was imported from {format}");
    }
    let kept = match training.best_step {
        0 => "no step improved on the initial prompt, which is kept".to_owned(),
        step => format!("the prompt of step {} is kept", count(step)),
    };
    let asked = training.settings.get("steps").and_then(Value::as_u64);
    let of = asked.map(|steps| format!(" of {}", count(steps))).unwrap_or_default();
    format!("{}{of} made; {kept}; seed {}", count(training.steps), training.seed)
}

fn settings(passport: &Passport) -> String {
    let named = SETTINGS.into_iter().filter_map(|name| {
        let value = match passport.training.settings.get(name)? {
            Value::String(text) => text.clone(),
            Value::Number(number) if name == "learning_rate" => format!("{:.2e}", number.as_f64()?),
            other => other.to_string(),
        };
        Some(format!("{} {value}", name.replace('_', " ")))
    });
    named.collect::<Vec<_>>().join(", ")
}

/// The calibration of the label probabilities.
fn corrected(calibration: &CalibrationRecord) -> String {
    let offsets = calibration.offsets.iter().map(|(name, offset)| format!("{name} {offset:+.3}"));
    let offsets = offsets.collect::<Vec<_>>().join(", ");
    format!(
        "probabilities by {}: log-likelihoods {offsets}, over a temperature of {:.3}",
        calibration.method, calibration.temperature
    )
}

/// How PEFT can use a directory with a passport.
fn peft(args: &InspectArgs, directory: &PromptDirectory) -> String {
    let placement = directory.passport.as_ref().map(|passport| passport.task.placement);
    let is = match (&directory.adapter, placement) {
        (Some(_), _) => format!(
            "loads it with PeftModel.from_pretrained(model, {:?}); texts are to be written into the template",
            args.prompt.display().to_string()
        ),
        (None, Some(placement)) if placement != Placement::Front => {
            format!("does not load it: it has no placement {placement}, so adapter_config.json is left out")
        }
        (None, _) => "does not load it: adapter_config.json is not there".to_owned(),
    };
    line("PEFT", &is)
}

/// Describes a directory written by PEFT.
fn without_passport(args: &InspectArgs, directory: &PromptDirectory) -> String {
    let Some(adapter) = &directory.adapter else { return String::new() };
    let model = adapter.base_model.as_deref().unwrap_or("not named");
    let task = adapter.task.map_or("not named", |task| task.as_str());
    [
        line("model", model),
        line("task", task),
        line("PEFT", &format!("{}; loads it as it is", adapter.peft_type())),
        format!(
            "\nThere is no foreword.json, so nothing says which template and labels it was trained with, or how good it \
             is;\n`foreword eval --prompt {} --model DIR --template TEXT --data FILE` measures it.",
            quoted_path(&args.prompt)
        ),
    ]
    .join("\n")
}

/// Compares the rows with the vocabulary.
fn beside(model: &str, inspection: &Inspection, labels: Option<&Verbalizer>) -> String {
    let names = labels.map_or(&[][..], Verbalizer::names);
    let n_nearest = inspection.rows.iter().map(|row| row.nearest.len()).max().unwrap_or(0);
    let has_drift = inspection.rows.iter().any(|row| row.drift.is_some());
    let mut headings = vec!["row".to_owned(), "norm".into(), "× table".into()];
    if has_drift {
        headings.extend(["‖p − p₀‖", "cos p₀"].map(str::to_owned));
    }
    if names.len() <= MOST_COLUMNS {
        headings.extend(names.iter().map(|name| format!("cos {name}")));
    } else {
        headings.push("nearest label".to_owned());
    }
    headings.extend((0..n_nearest).map(|i| if i == 0 { "nearest token".into() } else { String::new() }));
    let mut table = Table::new(headings);
    for (i, row) in inspection.rows.iter().enumerate() {
        table.row(cells(i, row, names, has_drift));
    }
    let mut text = format!(
        "Beside the vocabulary of {model}, whose embeddings have a norm of {:.3} (root mean square):\n\n{table}",
        inspection.table_norm
    );
    if let Some(mean) = inspection.mean_cosine {
        text.push_str(&format!("\n\nmean cosine between two rows: {mean:.2}"));
    }
    let still =
        inspection.rows.iter().filter(|row| row.drift.is_some_and(|drift| drift.nearest_is_init)).count();
    if still > 0 {
        let n = inspection.rows.len();
        text.push_str(&format!(
            "\nthe nearest token of {still} of {n} rows is the one that the row began as (p₀)"
        ));
    }
    if !has_drift {
        text.push_str("\nWhat the rows began as is not known here, so the way from there (p₀) is not shown.");
    }
    text
}

fn cells(i: usize, row: &InspectedRow, labels: &[String], has_drift: bool) -> Vec<String> {
    let mut cells =
        vec![(i + 1).to_string(), format!("{:.3}", row.norm), format!("{:.2}", row.relative_norm)];
    if has_drift {
        let drift = row.drift;
        cells.push(drift.map_or_else(String::new, |drift| format!("{:.3}", drift.distance)));
        cells.push(drift.map_or_else(String::new, |drift| format!("{:.2}", drift.cosine)));
    }
    if labels.len() <= MOST_COLUMNS {
        cells.extend(row.labels.iter().map(|cosine| format!("{cosine:.2}")));
    } else {
        let nearest = labels.iter().zip(&row.labels).max_by(|a, b| a.1.total_cmp(b.1));
        cells.push(nearest.map_or_else(String::new, |(name, cosine)| format!("{name} {cosine:.2}")));
    }
    cells.extend(row.nearest.iter().map(|near| format!("{} {:.2}", visible(&near.text), near.cosine)));
    cells
}
