//! Templates: how the fields of an example become the text before the label.

use std::fmt;
use std::str::FromStr;

/// Errors in a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// `{` without its `}`.
    #[error("template {template:?}, column {column}: '{{' without its '}}' (write '{{{{' for a brace)")]
    Unclosed {
        /// The template.
        template: String,
        /// The column of the brace, in characters from 1.
        column: usize,
    },
    /// `}` without its `{`.
    #[error("template {template:?}, column {column}: '}}' without its '{{' (write '}}}}' for a brace)")]
    Unopened {
        /// The template.
        template: String,
        /// The column of the brace, in characters from 1.
        column: usize,
    },
    /// `{}`
    #[error(
        "template {template:?}, column {column}: an empty slot, name the field that goes there, as in {{text}}"
    )]
    EmptySlot {
        /// The template.
        template: String,
        /// The column of the opening brace, in characters from 1.
        column: usize,
    },
    /// No required slot: every example could be the same text.
    #[error("template {template:?} has no slot, name the field that goes into it, as in {{text}}")]
    NoSlot {
        /// The template.
        template: String,
    },
}

/// A text with slots: `{field}` stands for a field, `{{` and `}}` for braces. The label or target follows it.
///
/// `{?field}` is an optional slot: an example may lack the field, and if it is empty, the whitespace before it is omitted
/// too.
///
/// ```
/// # use foreword_data::template::Template;
/// let template = Template::parse("{premise}\nSo: {hypothesis}\nTrue?")?;
/// let text = template.render(|slot| if slot == "premise" { "It rains." } else { "It is wet." });
/// assert_eq!(text, "It rains.\nSo: It is wet.\nTrue?");
/// # Ok::<(), foreword_data::template::TemplateError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
    slots: Vec<String>,
    /// For each slot, whether it may be empty.
    optional: Vec<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// An index into `slots`.
    Slot(usize),
}

/// A placeholder text, when only the text around it matters.
pub const SAMPLE: &str = "a";

impl Template {
    /// The default template for classification. `{text}` is the text field, whatever its name.
    pub const DEFAULT: &str = "{text}\nLabel:";

    /// The default template for generation.
    pub const DEFAULT_GENERATION: &str = "{text}\nOutput:";

    /// The default user message of a chat.
    pub const DEFAULT_MESSAGE: &str = "{text}";

    /// The value of a template that selects the model's own chat template.
    pub const CHAT: &str = "chat";

    /// Parses a template.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        let template = || source.to_owned();
        let mut parsed =
            Self { source: template(), parts: Vec::new(), slots: Vec::new(), optional: Vec::new() };
        let mut literal = String::new();
        let mut characters = (1..).zip(source.chars()).peekable();
        while let Some((column, character)) = characters.next() {
            let is_doubled = characters.peek().is_some_and(|&(_, next)| next == character);
            match character {
                '{' | '}' if is_doubled => {
                    characters.next();
                    literal.push(character);
                }
                '{' => {
                    let mut name = String::new();
                    loop {
                        match characters.next() {
                            Some((_, '}')) => break,
                            None | Some((_, '{')) => {
                                return Err(TemplateError::Unclosed { template: template(), column });
                            }
                            Some((_, character)) => name.push(character),
                        }
                    }
                    let name = name.trim();
                    let (name, optional) =
                        name.strip_prefix('?').map_or((name, false), |name| (name.trim(), true));
                    if name.is_empty() {
                        return Err(TemplateError::EmptySlot { template: template(), column });
                    }
                    parsed.add_literal(&mut literal);
                    parsed.add_slot(name, optional);
                }
                '}' => return Err(TemplateError::Unopened { template: template(), column }),
                _ => literal.push(character),
            }
        }
        parsed.add_literal(&mut literal);
        if parsed.required().next().is_none() {
            return Err(TemplateError::NoSlot { template: template() });
        }
        Ok(parsed)
    }

    /// The names of the slots, each once, in order of first occurrence.
    pub fn slots(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().map(String::as_str)
    }

    /// Whether the slot with this index may be empty.
    pub fn is_optional(&self, slot: usize) -> bool {
        self.optional.get(slot).copied().unwrap_or(false)
    }

    /// The names of the required slots, at least one.
    pub fn required(&self) -> impl Iterator<Item = &str> {
        self.slots().zip(&self.optional).filter(|(_, optional)| !**optional).map(|(slot, _)| slot)
    }

    /// The text with the value of each slot filled in. Braces in a value are literal.
    pub fn render<'v>(&self, value: impl Fn(&str) -> &'v str) -> String {
        let values: Vec<&str> = self.slots().map(value).collect();
        self.render_values(&values)
    }

    /// The template filled with [`SAMPLE`] texts.
    pub fn sample(&self) -> String {
        self.render(|_| SAMPLE)
    }

    /// The source of the template.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The template with a text before it, in which braces are literal.
    #[must_use]
    pub fn after(&self, text: &str) -> Self {
        let written = text.replace('{', "{{").replace('}', "}}");
        let parts = std::iter::once(Part::Literal(text.to_owned())).chain(self.parts.iter().cloned());
        Self {
            source: format!("{written}{}", self.source),
            parts: parts.collect(),
            slots: self.slots.clone(),
            optional: self.optional.clone(),
        }
    }

    /// The text with `values[i]` filled into slot i; a slot without a value is empty.
    pub fn render_values(&self, values: &[&str]) -> String {
        let value = |slot: usize| values.get(slot).copied().unwrap_or("");
        let is_left_out = |part: Option<&Part>| match part {
            Some(&Part::Slot(slot)) => self.is_optional(slot) && value(slot).trim().is_empty(),
            Some(Part::Literal(_)) | None => false,
        };
        let mut rendered = String::new();
        for (i, part) in self.parts.iter().enumerate() {
            match part {
                Part::Slot(_) if is_left_out(Some(part)) => {}
                Part::Slot(slot) => rendered.push_str(value(*slot)),
                Part::Literal(literal) => {
                    let at_start = rendered.is_empty() && i > 0;
                    let literal = if at_start && is_left_out(self.parts.get(i - 1)) {
                        literal.trim_start()
                    } else {
                        literal
                    };
                    let next = self.parts.get(i + 1);
                    rendered.push_str(if is_left_out(next) { literal.trim_end() } else { literal });
                }
            }
        }
        rendered
    }

    fn add_literal(&mut self, literal: &mut String) {
        if !literal.is_empty() {
            self.parts.push(Part::Literal(std::mem::take(literal)));
        }
    }

    fn add_slot(&mut self, name: &str, optional: bool) {
        let slot = self.slots.iter().position(|slot| slot == name).unwrap_or_else(|| {
            self.slots.push(name.to_owned());
            self.optional.push(true);
            self.slots.len() - 1
        });
        // A field that is required in one place is required.
        self.optional[slot] &= optional;
        self.parts.push(Part::Slot(slot));
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(source: &str) -> Result<Self, TemplateError> {
        Self::parse(source)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_are_named_once_and_filled_everywhere() {
        let template = Template::parse("{a} {{x}} { b}, {a}").unwrap();
        assert_eq!(template.slots().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(template.render(|slot| if slot == "a" { "{b}" } else { "2" }), "{b} {x} 2, {b}");
        assert_eq!(Template::parse(Template::DEFAULT).unwrap().render(|_| "good"), "good\nLabel:");
    }

    #[test]
    fn a_text_before_a_template_is_taken_literally() {
        let template = Template::parse("{a}: {b}").unwrap().after("{x} }{ ");
        assert_eq!(template.render(|slot| slot_value(slot)), "{x} }{ A: B");
        let again = Template::parse(template.source()).unwrap();
        assert_eq!(again.render(|slot| slot_value(slot)), "{x} }{ A: B");
        assert_eq!(again.slots().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn an_optional_slot_that_is_empty_leaves_nothing() {
        let template = Template::parse("{instruction}\n{? input}\nOutput:").unwrap();
        assert_eq!(template.slots().collect::<Vec<_>>(), ["instruction", "input"]);
        assert_eq!(template.required().collect::<Vec<_>>(), ["instruction"]);
        let with = |input| template.render(|slot| if slot == "input" { input } else { "Translate." });
        assert_eq!(with("Hallo"), "Translate.\nHallo\nOutput:");
        assert_eq!([with(""), with(" ")], ["Translate.\nOutput:", "Translate.\nOutput:"]);
        let first = Template::parse("{?title}\n{text}").unwrap();
        assert_eq!(first.render(|slot| if slot == "title" { "" } else { "b" }), "b");
        assert_eq!(first.render(|slot| if slot == "title" { "a" } else { "b" }), "a\nb");
        let both = Template::parse("{?a} {a}").unwrap();
        assert_eq!(both.required().collect::<Vec<_>>(), ["a"]);
        assert_eq!(Template::parse(template.source()).unwrap(), template);
        assert!(Template::parse("{?a}").unwrap_err().to_string().contains("has no slot"));
        assert!(Template::parse("{?}").unwrap_err().to_string().contains("an empty slot"));
    }

    fn slot_value(slot: &str) -> &'static str {
        if slot == "a" { "A" } else { "B" }
    }

    #[test]
    fn mistakes_are_named_by_column() {
        let message = |source| Template::parse(source).unwrap_err().to_string();
        assert_eq!(
            message("é {text"),
            r#"template "é {text", column 3: '{' without its '}' (write '{{' for a brace)"#
        );
        assert!(message("{a {b}").contains("column 1: '{' without"));
        assert_eq!(
            message("{a} }"),
            r#"template "{a} }", column 5: '}' without its '{' (write '}}' for a brace)"#
        );
        assert!(message("x{ }").contains("column 2: an empty slot"));
        assert!(message("no {{slot}}").contains("has no slot"));
        assert!(message("").contains("has no slot"));
    }

    proptest! {
        #[test]
        fn escaped_literals_and_values_come_out_as_they_went_in(before in ".{0,20}", value in ".{0,20}", after in ".{0,20}") {
            let escape = |text: &str| text.replace('{', "{{").replace('}', "}}");
            let source = format!("{}{{field}}{}", escape(&before), escape(&after));
            let template = Template::parse(&source).unwrap();
            prop_assert_eq!(template.render(|_| &value), format!("{before}{value}{after}"));
            prop_assert_eq!(Template::parse(template.source()).unwrap(), template);
        }

        #[test]
        fn no_text_makes_the_parser_panic(source in "([{}]|.){0,20}") {
            let _ = Template::parse(&source);
        }
    }
}
