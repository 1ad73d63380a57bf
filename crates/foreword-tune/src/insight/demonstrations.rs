//! Baselines without tuning: an instruction or in-context examples (Brown et al. 2020) before the template. Both are
//! ordinary text in a longer template.

use foreword_backbone::Model;
use foreword_backbone::kernels::Backend;

use crate::data::fields::slot_values;
use crate::data::split::rounds;
use crate::data::{Dataset, FieldIdx};
use crate::encode::EncodeError;
use crate::joint::joint;
use crate::task::{Task, TaskError};

/// The separator between two in-context examples, and before the text itself.
const BETWEEN: &str = "\n\n";

/// The task with an instruction on its own line before the template.
///
#[must_use]
pub fn instructed(task: &Task, instruction: &str) -> Task {
    Task { template: task.template.after(&format!("{instruction}\n")), ..task.clone() }
}

/// A task with in-context examples before its template.
#[derive(Clone, Debug)]
pub struct Demonstrated {
    /// The task; its texts may be as long as without in-context examples.
    pub task: Task,
    /// In-context examples per label, for labels with that many examples.
    pub per_label: usize,
    /// Number of in-context examples.
    pub n: usize,
    /// Number of their tokens.
    pub n_tokens: usize,
}

/// Puts up to `per_label` examples of each label before the template, each formatted like the text itself and followed by
/// its label's text. They are sampled with `seed`; a smaller number is a prefix of a larger one. `longest`: the number of
/// tokens of the longest text in the task's template with its label, which must fit into the model's context after them.
/// `None` if not even one example per label fits.
///
/// # Errors
/// If the task has no labels, or the examples lack a field.
pub fn demonstrated<B: Backend>(
    task: &Task,
    model: &Model<B>,
    (examples, label_field): (&Dataset, FieldIdx),
    per_label: usize,
    seed: u64,
    longest: usize,
) -> Result<Option<Demonstrated>, TaskError> {
    let verbalizer = &task.classification()?.verbalizer;
    let labels = verbalizer.label_indices(examples, label_field)?;
    let values = slot_values(&task.template, examples, task.text_field.as_deref())?;
    let mut shown = String::new();
    let mut fitting = None;
    let mut n = 0;
    for (round, rows) in (1..).zip(rounds(&labels, per_label, seed)) {
        n += rows.len();
        for row in rows {
            let text = task.template.render_values(&values[row]);
            shown.push_str(&joint(&text, &verbalizer.strings()[labels[row]]));
            shown.push_str(BETWEEN);
        }
        let n_tokens = model.tokenizer.encode_plain(&shown).map_err(EncodeError::from)?.len();
        if n_tokens + longest > model.backbone.spec().context {
            break;
        }
        fitting = Some((shown.len(), round, n, n_tokens));
    }
    let Some((end, per_label, n, n_tokens)) = fitting else { return Ok(None) };
    let template = task.template.after(&shown[..end]);
    let task = Task { template, max_length: task.max_length + n_tokens, ..task.clone() };
    Ok(Some(Demonstrated { task, per_label, n, n_tokens }))
}
