//! A Jinja environment for chat templates: that of transformers, with limits on the cost of a template.

use std::collections::BTreeMap;
use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, context};
use minijinja_contrib::pycompat;
use serde::Serialize as _;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::ChatError;
use super::source::{Unreadable, understood};

/// A template in its own file.
pub(super) const TEMPLATE_FILE: &str = "chat_template.jinja";
/// The name of the only template.
const NAME: &str = "chat";
/// The cost limit of a rendering: one unit per instruction, and one per 64 bytes of generated text. That is 128 MB, or a
/// few tenths of a second.
const FUEL: u64 = 2_000_000;
/// Maximum nesting depth of macros and blocks.
const DEPTH: usize = 200;
/// Maximum indentation of JSON.
const MOST_INDENT: usize = 16;

/// The origin of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `chat_template.jinja`.
    File,
    /// `chat_template` in `tokenizer_config.json`.
    Config,
}

impl Origin {
    /// The file name.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::File => TEMPLATE_FILE,
            Self::Config => "tokenizer_config.json",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file())
    }
}

/// A chat message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    role: &'static str,
    content: String,
}

impl Message {
    pub(super) fn new(role: &'static str, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// A compiled template.
#[derive(Debug)]
pub(super) struct Jinja {
    environment: Environment<'static>,
    origin: Origin,
}

impl Jinja {
    /// Compiles a template that may use these special tokens.
    pub(super) fn new(
        source: &str,
        origin: Origin,
        special_tokens: BTreeMap<String, Value>,
    ) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| told(origin, &error))?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_formatter(write_value);
        environment.set_unknown_method_callback(pycompat::unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(DEPTH);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        for (name, value) in special_tokens {
            environment.add_global(name, value);
        }
        let source = understood(source).map_err(|Unreadable { line, reason }| ChatError::Template {
            origin,
            line: Some(line),
            reason,
        })?;
        let added = environment.add_template_owned(NAME, source);
        added.map_err(|error| told(origin, &error))?;
        Ok(Self { environment, origin })
    }

    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// Renders a chat; with `ask` up to the assistant's reply.
    pub(super) fn render(&self, messages: &[Message], ask: bool) -> Result<String, ChatError> {
        let none = Value::from(());
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role, content => message.content.as_str() })
            .collect();
        let context =
            context! { messages, add_generation_prompt => ask, tools => none.clone(), documents => none };
        let template = self.environment.get_template(NAME).map_err(|error| told(self.origin, &error))?;
        template.render(context).map_err(|error| told(self.origin, &error))
    }
}

fn told(origin: Origin, error: &Error) -> ChatError {
    let detail = error.detail().map_or_else(
        || error.kind().to_string(),
        |detail| match error.kind() {
            ErrorKind::InvalidOperation => detail.to_owned(),
            kind => format!("{kind}, {detail}"),
        },
    );
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => "it takes too long, or writes too much, and was stopped".to_owned(),
        _ => detail,
    };
    // An error in a macro or an attribute is the cause of the reported one.
    let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
    ChatError::Template { origin, line: error.line(), reason: format!("{reason}{cause}") }
}

/// Writes values as Python does.
fn write_value(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let python = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    out.write_str(python).map_err(Error::from)
}

fn raise_exception(message: &str) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("it refuses these messages: {message}")))
}

/// The date of all chats, so that a text always has the same tokens: that of Llama 3's own template, a Friday.
const TODAY: [(char, &str); 17] = [
    ('Y', "2024"),
    ('y', "24"),
    ('m', "07"),
    ('B', "July"),
    ('b', "Jul"),
    ('d', "26"),
    ('j', "208"),
    ('A', "Friday"),
    ('a', "Fri"),
    ('w', "5"),
    ('u', "5"),
    ('H', "00"),
    ('I', "12"),
    ('M', "00"),
    ('S', "00"),
    ('p', "AM"),
    ('%', "%"),
];

fn strftime_now(format: &str) -> Result<String, Error> {
    let mut written = String::with_capacity(format.len());
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            written.push(character);
            continue;
        }
        // %-d is the number without a leading zero.
        let (trimmed, letter) = match characters.next() {
            Some('-') => (true, characters.next()),
            letter => (false, letter),
        };
        let known = TODAY.iter().find(|(name, _)| Some(*name) == letter);
        match (known, letter) {
            (Some((_, text)), _) => {
                written.push_str(if trimmed { text.trim_start_matches('0') } else { text });
            }
            (None, Some('F')) => written.push_str("2024-07-26"),
            (None, letter) => {
                let letter = letter.map_or(String::new(), String::from);
                let detail = format!("strftime_now does not know %{letter}");
                return Err(Error::new(ErrorKind::InvalidOperation, detail));
            }
        }
    }
    Ok(written)
}

/// JSON as written by Python's `json.dumps` with `ensure_ascii=False`.
#[allow(clippy::needless_pass_by_value, reason = "so minijinja hands over a filter's options")]
fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    let invalid = |detail: String| Error::new(ErrorKind::InvalidOperation, detail);
    let mut json = serde_json::to_value(value).map_err(|error| invalid(format!("no JSON: {error}")))?;
    if sorted == Some(true) {
        json.sort_all_objects();
    }
    let mut bytes = Vec::new();
    let written = match (indent, separators.as_deref()) {
        (Some(indent), None) if indent <= MOST_INDENT => {
            let spaces = " ".repeat(indent);
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            json.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))
        }
        (None, None) => {
            let formatter = Separated { items: ", ", keys: ": " };
            json.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))
        }
        (None, Some([items, keys])) => {
            json.serialize(&mut Serializer::with_formatter(&mut bytes, Separated { items, keys }))
        }
        _ => return Err(invalid("tojson takes either an indent up to 16 or two separators".to_owned())),
    };
    written.map_err(|error| invalid(format!("no JSON: {error}")))?;
    Ok(Value::from(String::from_utf8_lossy(&bytes)))
}

/// JSON on one line.
struct Separated<'a> {
    items: &'a str,
    keys: &'a str,
}

impl Separated<'_> {
    fn between<W: std::io::Write + ?Sized>(&self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.items.as_bytes()) }
    }
}

impl Formatter for Separated<'_> {
    fn begin_array_value<W: std::io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        self.between(writer, first)
    }

    fn begin_object_key<W: std::io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        self.between(writer, first)
    }

    fn begin_object_value<W: std::io::Write + ?Sized>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(self.keys.as_bytes())
    }
}
