//! Adds the defaults to the help, each from the one place that defines it.

use clap::CommandFactory as _;
use foreword::Template;
use foreword::generate::{DEFAULT_MAX_NEW_TOKENS, Sampling};
use foreword::settings::{DEFAULT_BATCH_SIZE, DEFAULT_MAX_LENGTH, DEFAULT_OBJECTIVE};
use foreword::task_file::{PromptTable, TrainTable};

use super::{LowArgs, compare};

/// The command line, with the defaults in its help.
pub(crate) fn build_command() -> clap::Command {
    let defaults = defaults();
    LowArgs::command().mut_subcommands(|mut verb| {
        let is_of_a_prompt =
            matches!(verb.get_name(), "eval" | "classify" | "generate" | "explain" | "inspect" | "compare");
        for (name, default) in &defaults {
            // Other verbs have flags of these names with other meanings.
            let only = match *name {
                "out" if matches!(verb.get_name(), "classify" | "generate") => continue,
                "shots" => "compare",
                "ensemble" => "train",
                _ => verb.get_name(),
            };
            // Some already state their default.
            let is_bare = |arg: &clap::Arg| {
                arg.get_id() == *name
                    && !arg.get_help().is_some_and(|help| help.to_string().contains("[default:"))
            };
            if only != verb.get_name() || !verb.get_arguments().any(is_bare) {
                continue;
            }
            let default = match *name {
                "model" if is_of_a_prompt => {
                    format!("the model recorded in the first prompt, if bundled or on the Hugging Face hub; else {default}")
                }
                "seed" if verb.get_name() == "generate" => Sampling::default().seed.to_string(),
                "template" | "message" | "placement" | "max_length" | "objective" if is_of_a_prompt => {
                    format!("the prompt's own, or {default}")
                }
                "text_field" | "label_field" if is_of_a_prompt => {
                    "the prompt's own, or guessed from common names".to_owned()
                }
                "labels" if is_of_a_prompt => {
                    "the prompt's own, or the labels in the data, each with a space before its name".to_owned()
                }
                "out" if verb.get_name() == "quickstart" => crate::commands::quickstart::OUT.to_owned(),
                _ => default.clone(),
            };
            verb = verb.mut_arg(name, |arg| {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                arg.help(format!("{help} [default: {default}]"))
            });
        }
        verb = with_note(verb);
        // Let the flag's own parser report a negative number.
        verb.mut_args(|arg| {
            let takes_one = arg.get_num_args().is_none_or(|n| n.max_values() > 0);
            let takes_value = !arg.is_positional() && arg.get_action().takes_values() && takes_one;
            if takes_value { arg.allow_negative_numbers(true) } else { arg }
        })
    })
}

/// Ends the short help of a verb that leaves flags out with how to see them.
fn with_note(verb: clap::Command) -> clap::Command {
    let leaves_out = verb.get_arguments().any(clap::Arg::is_hide_short_help_set);
    let Some(examples) = verb.get_after_help().filter(|_| leaves_out).cloned() else { return verb };
    let name = verb.get_name();
    let note = format!("{examples}\n\n`{} {name} --help` shows all flags.", super::NAME);
    verb.after_long_help(examples).after_help(note)
}

fn defaults() -> Vec<(&'static str, String)> {
    let Sampling { temperature, top_k, top_p, repetition_penalty, .. } = Sampling::default();
    let mut defaults = vec![
        ("model", foreword::BUNDLED_MODEL.to_owned()),
        (
            "template",
            format!(
                "{:?}, or {:?} where texts are generated",
                Template::DEFAULT,
                Template::DEFAULT_GENERATION
            ),
        ),
        ("message", format!("{:?}", Template::DEFAULT_MESSAGE)),
        ("max_length", DEFAULT_MAX_LENGTH.to_string()),
        ("objective", DEFAULT_OBJECTIVE.to_string()),
        (
            "batch_size",
            format!("{DEFAULT_BATCH_SIZE}, or a quarter of the examples, at least 8, where that is less"),
        ),
        ("candidates", "1".to_owned()),
        ("max_new_tokens", format!("{DEFAULT_MAX_NEW_TOKENS}, or half of what fits where that is less")),
        ("temperature", temperature.to_string()),
        ("top_k", top_k.to_string()),
        ("top_p", top_p.to_string()),
        ("repetition_penalty", repetition_penalty.to_string()),
        ("shots", compare::DEFAULT_SHOTS.to_string()),
        ("flips", compare::DEFAULT_FLIPS.to_string()),
        ("top", foreword::inspect::DEFAULT_TOP.to_string()),
        ("text_field", "guessed from common names".to_owned()),
        ("label_field", "guessed from common names".to_owned()),
        ("labels", "the labels in the data, each with a space before its name".to_owned()),
        ("out", "the name of the task file or data, with -prompt".to_owned()),
    ];
    defaults.extend(PromptTable::defaults());
    // A switch has no default to print.
    defaults.extend(TrainTable::defaults().into_iter().filter(|(name, _)| *name != "shuffle"));
    defaults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_belongs_to_a_flag() {
        let command = build_command();
        for (name, _) in defaults() {
            let has = |verb: &clap::Command| verb.get_arguments().any(|arg| arg.get_id() == name);
            assert!(command.get_subcommands().any(has), "{name}");
        }
    }

    #[test]
    fn no_default_is_told_twice() {
        for verb in build_command().get_subcommands() {
            for arg in verb.get_arguments() {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let told = help.matches("[default:").count();
                let by_clap = !arg.get_default_values().is_empty() && !arg.is_hide_default_value_set();
                let (verb, flag) = (verb.get_name(), arg.get_id());
                assert!(told + usize::from(by_clap) <= 1, "{verb} {flag}: {help}");
                assert!(told == 0 || arg.get_action().takes_values(), "{verb} {flag} is a switch: {help}");
            }
        }
    }

    #[test]
    fn a_default_is_that_of_its_own_verb() {
        let command = build_command();
        let help = |verb: &str, flag: &str| {
            let arg = command.find_subcommand(verb)?.get_arguments().find(|arg| arg.get_id() == flag)?;
            arg.get_help().map(ToString::to_string)
        };
        assert!(help("compare", "shots").unwrap().contains("[default: 4]"));
        assert!(!help("train", "shots").unwrap().contains("[default:"));
        assert!(help("train", "ensemble").unwrap().contains("[default: 1]"));
        assert!(!help("eval", "ensemble").unwrap().contains("[default:"));
    }
}
