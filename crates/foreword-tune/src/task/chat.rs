//! Chats: a text as the user message in the model's own chat template, up to the assistant's reply.
//!
//! The template is rendered as in transformers (`apply_chat_template` with a generation prompt). Its output around the
//! message is the frame, which is the same for every text. So the tokens of the frame may be special tokens, while those of
//! the message never are, whatever it contains.

mod files;
mod jinja;
mod source;

use std::sync::Arc;

use foreword_backbone::kernels::{Backend, Token};
use foreword_backbone::tokenizer::MarkedText;
use foreword_backbone::{Model, Tokenizer, TokenizerError};
use foreword_format::ChatRecord;
use foreword_format::digest::sha256;

use crate::settings::Placement;
use files::ChatTemplate;
pub use jinja::Origin;
use jinja::{Jinja, Message};

/// Placeholder for the user message, to find its position. No template has a reason to modify these characters.
const USER: &str = "\u{f8f0}\u{f8f1}\u{f8f2}";
const ANSWER: &str = "\u{f8f3}\u{f8f4}\u{f8f5}";
/// Placeholder for learned rows in the system message. It is in every rendering, but not in any text that is tokenised.
const SLOT: &str = "\u{f8f6}\u{f8f7}\u{f8f8}";

/// Why a text can't be put into a chat.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The model has no chat template.
    #[error(
        "the model {model} has no chat template, neither chat_template.jinja nor `chat_template` in its \
         tokenizer_config.json: write a template in words (--template '{{text}}\\nLabel:'), or take a model that has one"
    )]
    None {
        /// The model's name.
        model: String,
    },
    /// An invalid file.
    #[error("{file}: {reason}")]
    File {
        /// The file's name.
        file: &'static str,
        /// The reason.
        reason: String,
    },
    /// The template is not valid Jinja, fails, or rejects the messages.
    #[error("the model's chat template ({origin}){line}: {reason}", line = line.map_or(String::new(), |line| format!(", line {line}")))]
    Template {
        /// Its origin.
        origin: Origin,
        /// The line, from 1, if known.
        line: Option<usize>,
        /// The reason.
        reason: String,
    },
    /// The template does not support a system message.
    #[error(
        "the model's chat template ({origin}) leaves the system message out{reason}: leave out `system` and the placement \
         system, and put what it should say into `message`"
    )]
    NoSystem {
        /// Its origin.
        origin: Origin,
        /// Its own message, as a phrase.
        reason: String,
    },
    /// The learned rows do not have a single position before all texts.
    #[error(
        "the model's chat template ({origin}) writes the system message {where_}, so learned rows can't stand in it: use the \
         placement front, after-bos or suffix"
    )]
    Slot {
        /// Its origin.
        origin: Origin,
        /// The location of the system message.
        where_: &'static str,
    },
    /// The message is not written exactly once.
    #[error(
        "the model's chat template ({origin}) writes the user's message {n} times instead of once: write a template in words"
    )]
    Message {
        /// Its origin.
        origin: Origin,
        /// The number of times.
        n: usize,
    },
    /// The message is not written like others.
    #[error(
        "the model's chat template ({origin}) writes something else around the message {message:?} than around others: \
         write a template in words, or leave the text out"
    )]
    Unlike {
        /// Its origin.
        origin: Origin,
        /// The beginning of the message.
        message: String,
    },
    /// The template differs from the one that a prompt was trained with.
    #[error(
        "the prompt was trained with another chat template than the model has now: it wrote {recorded:?} and now writes \
         {here:?} around a message; put the model's files back, or take the template as it is now with --template chat"
    )]
    Other {
        /// The recorded text around a message.
        recorded: String,
        /// The current text around a message.
        here: String,
    },
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// The model's chat template with a placeholder for the user message. Clones share it.
#[derive(Clone, Debug)]
pub struct Chat(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    jinja: Jinja,
    digest: String,
    system: Option<String>,
    /// Whether the learned rows are in the system message.
    placement: Placement,
    frame: Frame,
    /// The tokens before the learned rows, under after-bos and system.
    leading: Vec<Token>,
    is_spaced: bool,
    end: Option<Token>,
}

/// The text around every message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    /// As rendered, including the placeholder for learned rows if there is one.
    rendered: String,
    before: String,
    after: String,
    /// The position of learned rows in `before`.
    slot: Option<usize>,
}

impl Chat {
    /// The chat template of a model, with a system message if one is given.
    ///
    /// # Errors
    /// If the model has none, it can't be read, or it does not support the message, the system message or the learned rows.
    pub fn new<B: Backend>(
        model: &Model<B>,
        system: Option<&str>,
        placement: Placement,
    ) -> Result<Self, ChatError> {
        let found = files::chat_template(&model.chat)?;
        let found = found.ok_or_else(|| ChatError::None { model: model.backbone.name().to_owned() })?;
        Self::of(found, &model.tokenizer, system, placement)
    }

    /// As [`Chat::new`], for a template already found.
    fn of(
        found: ChatTemplate,
        tokenizer: &Tokenizer,
        system: Option<&str>,
        placement: Placement,
    ) -> Result<Self, ChatError> {
        let ChatTemplate { source, origin, special_tokens } = found;
        let bos = special_tokens
            .get("bos_token")
            .and_then(|token| token.as_str())
            .and_then(|bos| tokenizer.id(bos));
        let digest = sha256(source.as_bytes());
        let jinja = Jinja::new(&source, origin, special_tokens)?;
        let frame = Frame::find(&jinja, system, placement)?;
        let (is_spaced, end) = answer(&jinja, tokenizer, system, placement)?;
        let (whole, n_before) = tokenizer.encode_marked(&frame.around(""))?;
        let n_leading = match placement {
            Placement::System => n_before,
            _ if !tokenizer.leading().is_empty() && whole.starts_with(tokenizer.leading()) => {
                tokenizer.leading().len()
            }
            _ => usize::from(bos.is_some() && bos == whole.first().copied()),
        };
        let leading = whole[..n_leading].to_vec();
        let system = system.map(str::to_owned);
        Ok(Self(Arc::new(Inner { jinja, digest, system, placement, frame, leading, is_spaced, end })))
    }

    /// The chat that a prompt was trained with.
    ///
    /// # Errors
    /// As [`Chat::new`], and if the output of the model's template has changed.
    pub fn of_record<B: Backend>(
        model: &Model<B>,
        record: &ChatRecord,
        placement: Placement,
    ) -> Result<Self, ChatError> {
        let chat = Self::new(model, record.system.as_deref(), placement)?;
        let Frame { before, after, .. } = &chat.0.frame;
        if (before, after) != (&record.before, &record.after) {
            let recorded = format!("{}{MESSAGE}{}", record.before, record.after);
            return Err(ChatError::Other { recorded, here: chat.shown() });
        }
        Ok(chat)
    }

    /// The record for a prompt directory.
    #[must_use]
    pub fn record(&self) -> ChatRecord {
        let Frame { before, after, .. } = self.0.frame.clone();
        ChatRecord { template_digest: self.0.digest.clone(), system: self.0.system.clone(), before, after }
    }

    /// The digest of the template's text.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.0.digest
    }

    /// The system message.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        self.0.system.as_deref()
    }

    /// The rendered chat, with `{message}` as a placeholder.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{}{MESSAGE}{}", self.0.frame.before, self.0.frame.after)
    }

    /// A message in its chat, up to the assistant's reply.
    ///
    /// # Errors
    /// If the template rejects it, or writes other text around it than around other messages.
    pub fn text(&self, message: &str) -> Result<String, ChatError> {
        Ok(self.marked(message)?.text)
    }

    /// Whether the template puts a space before a reply.
    #[must_use]
    pub fn is_spaced(&self) -> bool {
        self.0.is_spaced
    }

    /// The special token that the template puts after a reply.
    #[must_use]
    pub fn end(&self) -> Option<Token> {
        self.0.end
    }

    /// The tokens before learned rows after the BOS or in the system message.
    #[must_use]
    pub fn leading(&self) -> &[Token] {
        &self.0.leading
    }

    /// The token that would begin every chat twice, if there is one. Nothing is added before a chat: the template writes
    /// its own BOS.
    ///
    /// # Errors
    /// If the text around a message can't be tokenised.
    pub fn doubled(&self, tokenizer: &Tokenizer) -> Result<Option<Token>, ChatError> {
        let (whole, _) = tokenizer.encode_marked(&self.0.frame.around(""))?;
        Ok(match whole[..] {
            [first, second, ..] if first == second && tokenizer.bos() == Some(first) => Some(first),
            _ => None,
        })
    }

    /// Number of tokens of a chat with this message, which the template need not accept.
    pub(crate) fn n_tokens(&self, tokenizer: &Tokenizer, message: &str) -> Result<usize, ChatError> {
        Ok(tokenizer.encode_marked(&self.0.frame.around(message))?.0.len())
    }

    /// A message in its chat, with the marks for tokenisation.
    pub(crate) fn marked(&self, message: &str) -> Result<MarkedText, ChatError> {
        let Inner { jinja, system, placement, frame, .. } = &*self.0;
        let messages = opening(system.as_deref(), *placement, message);
        let rendered = jinja.render(&messages, true)?;
        let written = rendered.strip_prefix(&frame.rendered).and_then(|rest| rest.strip_suffix(&frame.after));
        let written = written.ok_or_else(|| ChatError::Unlike {
            origin: jinja.origin(),
            message: message.chars().take(40).collect(),
        })?;
        Ok(frame.around(written))
    }
}

/// The placeholder for a message when a frame is shown.
const MESSAGE: &str = "{message}";

/// The messages of a chat up to the user message.
fn opening(system: Option<&str>, placement: Placement, message: &str) -> Vec<Message> {
    let slot = if placement == Placement::System { SLOT } else { "" };
    let system = match (system, slot) {
        (None, "") => None,
        (system, slot) => Some(Message::new("system", format!("{slot}{}", system.unwrap_or_default()))),
    };
    system.into_iter().chain([Message::new("user", message)]).collect()
}

impl Frame {
    fn find(jinja: &Jinja, system: Option<&str>, placement: Placement) -> Result<Self, ChatError> {
        let origin = jinja.origin();
        if system.is_some() || placement == Placement::System {
            check_system(jinja)?;
        }
        let rendered = jinja.render(&opening(system, placement, USER), true)?;
        let (before, after) = match rendered.matches(USER).count() {
            1 => rendered.split_once(USER).unwrap_or_default(),
            n => return Err(ChatError::Message { origin, n }),
        };
        let mut frame = Self {
            rendered: before.to_owned(),
            before: before.replace(SLOT, ""),
            after: after.to_owned(),
            slot: None,
        };
        if placement == Placement::System {
            frame.slot = match (before.matches(SLOT).count(), after.contains(SLOT)) {
                (1, false) => before.find(SLOT),
                (0, true) => return Err(ChatError::Slot { origin, where_: "after the user's" }),
                _ => return Err(ChatError::Slot { origin, where_: "more than once" }),
            };
        }
        Ok(frame)
    }

    fn around(&self, message: &str) -> MarkedText {
        let plain = self.before.len()..self.before.len() + message.len();
        MarkedText { text: format!("{}{message}{}", self.before, self.after), plain, cut: self.slot }
    }
}

/// Checks that the template writes a system message at all.
fn check_system(jinja: &Jinja) -> Result<(), ChatError> {
    let origin = jinja.origin();
    let rendered = jinja.render(&opening(None, Placement::System, USER), true);
    let with = match rendered {
        Ok(with) => with,
        // A chat without a system message shows whether the system message is what is rejected.
        Err(error) => match jinja.render(&opening(None, Placement::Front, USER), true) {
            Ok(_) => return Err(ChatError::NoSystem { origin, reason: format!(" ({error})") }),
            Err(_) => return Err(error),
        },
    };
    if with.contains(SLOT) { Ok(()) } else { Err(ChatError::NoSystem { origin, reason: String::new() }) }
}

/// Whether the template puts a space before a reply, and the special token after it. `None` if it does not support replies.
fn answer(
    jinja: &Jinja,
    tokenizer: &Tokenizer,
    system: Option<&str>,
    placement: Placement,
) -> Result<(bool, Option<Token>), ChatError> {
    let mut messages = opening(system, placement, USER);
    let asked = jinja.render(&messages, true)?;
    messages.push(Message::new("assistant", ANSWER));
    let answered = jinja.render(&messages, false).unwrap_or_default();
    let Some((before, after)) = answered.split_once(ANSWER) else { return Ok((false, None)) };
    let is_spaced = before.strip_prefix(&asked).is_some_and(|joint| joint == " ");
    let tail = MarkedText { text: after.to_owned(), plain: 0..0, cut: None };
    let end = tokenizer.encode_marked(&tail)?.0.first().copied();
    Ok((is_spaced, end.filter(|&end| tokenizer.is_special(end))))
}

#[cfg(test)]
mod tests;
