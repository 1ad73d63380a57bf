//! Conversations: lists of messages with roles, as OpenAI (`messages`, `role`, `content`) and ShareGPT (`conversations`,
//! `from`, `value`) write them. The last answer is the target, and everything before it is the text.

use super::super::{Cell, DataError, FieldIdx, Row};
use super::Table;
use super::source::Source;
use serde_json::{Map, Value};

/// The fields with conversations.
pub(super) const NAMES: [&str; 4] = ["messages", "conversations", "conversation", "chat"];

/// The fields that are made of a conversation.
const SYSTEM: &str = "system";
const USER: &str = "user";
const ASSISTANT: &str = "assistant";

#[derive(Clone, Copy, PartialEq)]
enum Role {
    System,
    User,
    Assistant,
    Tool,
}

struct Message {
    role: Role,
    /// `None`: it has no text, only calls of tools.
    text: Option<String>,
}

/// A conversation as an example.
struct Turns {
    system: Cell,
    user: Cell,
    assistant: Cell,
    has_several: bool,
}

/// What is to be said about conversations.
#[derive(Default)]
struct Counts {
    n: usize,
    several: usize,
    with_system: usize,
    unanswered: usize,
}

impl Counts {
    fn add(&mut self, turns: &Turns) {
        self.n += 1;
        self.several += usize::from(turns.has_several);
        self.with_system += usize::from(turns.system != Cell::Null);
        self.unanswered += usize::from(turns.assistant == Cell::Null);
    }

    /// `fields`: the names of the fields for the system message, the text and the answer.
    fn tell(&self, fields: &[Option<String>; 3], source: &mut Source<'_>) {
        let (name, n) = (source.name(), self.n);
        let [system, user, assistant] = fields;
        if let (several @ 1.., Some(user)) = (self.several, user) {
            let answer = assistant
                .as_ref()
                .map_or_else(String::new, |answer| format!("the last answer is {answer:?}, and "));
            let before = if assistant.is_some() { "before it " } else { "" };
            source.say(format!(
                "{name}: {several} of {n} conversations have several turns: {answer}all messages {before}are {user:?}, each \
                 after its role"
            ));
        }
        if let (with @ 1.., Some(system)) = (self.with_system, system) {
            source.say(format!(
                "{name}: {with} of {n} conversations have a system message, in the field {system:?}: only a template that \
                 names it reads it, such as '{{?{system}}}\\n{{{}}}'",
                user.as_deref().unwrap_or(USER)
            ));
        }
        match (self.unanswered, assistant) {
            (0, _) => {}
            (unanswered, Some(assistant)) => source.warn(format!(
                "{name}: {unanswered} of {n} conversations do not end with an answer, and have no {assistant:?}: training and \
                 eval need one (--skip-bad leaves such examples out)"
            )),
            (_, None) => source.say(format!("{name}: no conversation ends with an answer, so there is nothing to learn")),
        }
    }
}

/// Adds the messages of a field with conversations as fields of their own.
pub(super) fn with_turns(mut table: Table, source: &mut Source<'_>) -> Result<Table, DataError> {
    let Some(field) = conversations(&table) else { return Ok(table) };
    let name = table.fields[field.0].clone();
    let mut found = Vec::with_capacity(table.rows.len());
    for row in std::mem::take(&mut table.rows) {
        match turns(&row, field) {
            Ok(turns) => found.push((row, turns)),
            Err(reason) => {
                let location = source.location(row.line);
                source.skip(row.line, DataError::Conversation { location, field: name.clone(), reason })?;
            }
        }
    }
    let mut counts = Counts::default();
    found.iter().filter_map(|(_, turns)| turns.as_ref()).for_each(|turns| counts.add(turns));
    let mut columns: [Vec<Cell>; 3] = [Vec::new(), Vec::new(), Vec::new()];
    for (row, turns) in found {
        table.rows.push(row);
        let cells = turns.map_or([Cell::Null, Cell::Null, Cell::Null], |turns| {
            [turns.system, turns.user, turns.assistant]
        });
        columns.iter_mut().zip(cells).for_each(|(column, cell)| column.push(cell));
    }
    let mut fields = [None, None, None];
    for ((role, cells), field) in [SYSTEM, USER, ASSISTANT].into_iter().zip(columns).zip(&mut fields) {
        if cells.iter().any(|cell| *cell != Cell::Null) {
            *field = Some(add_field(&mut table, (&name, role), cells));
        }
    }
    table.about.sources.insert(field);
    let made: Vec<String> = fields.iter().flatten().map(|field| format!("{field:?}")).collect();
    source.say(format!(
        "{}: the conversations in the field {name:?} are read as the fields {}",
        source.name(),
        made.join(", ")
    ));
    counts.tell(&fields, source);
    Ok(table)
}

/// The field with conversations: a list of objects with a role in the first example that has the field.
fn conversations(table: &Table) -> Option<FieldIdx> {
    let of_name = |name: &&str| table.fields.iter().position(|field| field == name).map(FieldIdx);
    NAMES.iter().filter_map(of_name).find(|field| {
        let mut cells = table.rows.iter().flat_map(|row| &row.cells).filter(|(at, _)| at == field);
        let first = cells.find_map(|(_, cell)| match cell {
            Cell::Nested(nested) => nested.json(),
            _ => None,
        });
        let messages = first.and_then(written);
        messages.is_some_and(|messages| messages.first().is_some_and(|message| role_of(message).is_some()))
    })
}

/// The messages of a conversation: a list of objects, or an object of lists, as Hugging Face `datasets` once stored it.
fn written(json: &str) -> Option<Vec<Map<String, Value>>> {
    if let Ok(messages) = serde_json::from_str(json) {
        return Some(messages);
    }
    let lists: Map<String, Value> = serde_json::from_str(json).ok()?;
    let n = role_of(&lists)?.as_array()?.len();
    let message = |i: usize| {
        let values = lists.iter().map(|(key, list)| Some((key.clone(), list.as_array()?.get(i)?.clone())));
        values.collect::<Option<Map<_, _>>>()
    };
    (0..n).map(message).collect()
}

fn role_of(message: &Map<String, Value>) -> Option<&Value> {
    message.get("role").or_else(|| message.get("from"))
}

/// The turns of a row; none if it has no value there.
fn turns(row: &Row, field: FieldIdx) -> Result<Option<Turns>, String> {
    let cell = row.cells.iter().find(|(at, _)| *at == field).map(|(_, cell)| cell);
    let json = match cell {
        None | Some(Cell::Null) => return Ok(None),
        Some(Cell::Nested(nested)) => nested.json().ok_or("it is not known")?,
        Some(_) => return Err("it is no list of messages".to_owned()),
    };
    let written = written(json).ok_or("it is no list of messages")?;
    let mut messages = written.iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let mut system = Cell::Null;
    if messages.first().is_some_and(|first| first.role == Role::System) {
        system = messages.remove(0).text.into();
    }
    let assistant = match messages.last() {
        Some(last) if last.role == Role::Assistant => messages.pop().map(|last| last.text),
        _ => None,
    };
    let user = match messages.as_slice() {
        [] => return Err("there is no message before the answer".to_owned()),
        [only] if only.role == Role::User => only.text.clone().unwrap_or_default(),
        several => several.iter().map(Message::written).collect::<Vec<_>>().join("\n"),
    };
    let has_several = messages.len() > 1;
    Ok(Some(Turns { system, user: user.into(), assistant: assistant.flatten().into(), has_several }))
}

fn message(written: &Map<String, Value>) -> Result<Message, String> {
    let role = role_of(written).and_then(Value::as_str).ok_or("a message has no role")?;
    let role = match role.to_lowercase().as_str() {
        "system" | "developer" => Role::System,
        "user" | "human" | "prompter" => Role::User,
        "assistant" | "gpt" | "chatgpt" | "model" | "bot" | "bard" | "bing" => Role::Assistant,
        "tool" | "function" | "function_call" | "observation" | "ipython" => Role::Tool,
        _ => return Err(format!("the role {role:?} is unknown")),
    };
    let content = ["content", "value", "text"].into_iter().find_map(|key| written.get(key));
    let text = match content {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(parts)) => Some(parts.iter().map(part).collect::<Result<Vec<_>, _>>()?.join("\n")),
        Some(_) => return Err("the content of a message is no text".to_owned()),
    };
    Ok(Message { role, text })
}

/// A part of a message of several.
fn part(part: &Value) -> Result<&str, String> {
    let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
    match part.get("text").and_then(Value::as_str).or(part.as_str()) {
        Some(text) if matches!(kind, "text" | "input_text" | "output_text") => Ok(text),
        _ => Err(format!("a part of a message has the type {kind:?}, and only text can be read")),
    }
}

impl Message {
    /// With its role, as a line of a conversation.
    fn written(&self) -> String {
        let role = match self.role {
            Role::System => SYSTEM,
            Role::User => USER,
            Role::Assistant => ASSISTANT,
            Role::Tool => "tool",
        };
        format!("{role}: {}", self.text.as_deref().unwrap_or_default())
    }
}

/// Adds a field after all others. Its name is its role, or, if the file has a field of that name, follows the conversation's.
fn add_field(table: &mut Table, (conversation, role): (&str, &str), cells: Vec<Cell>) -> String {
    let mut name = role.to_owned();
    while table.fields.contains(&name) {
        name = if name == role { format!("{conversation}.{role}") } else { format!("{name}_") };
    }
    let field = FieldIdx(table.fields.len());
    table.fields.push(name.clone());
    table.about.derived.insert(field);
    for (row, cell) in table.rows.iter_mut().zip(cells) {
        if cell != Cell::Null {
            row.cells.push((field, cell));
        }
    }
    name
}
