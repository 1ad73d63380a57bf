//! Tokenises examples: fills each row's fields into the template, tokenises the whole, and truncates it if it is too long.

use crate::chat::ChatError;
use crate::data::fields::slot_fields;
use crate::data::{DataError, Dataset, Location};
use crate::joint::Joiner;
use crate::template::Template;
use foreword_backbone::tokenizer::TokenizerError;

/// Errors in the texts of examples.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// There is no space even with all fields empty.
    #[error(
        "{location}: the template alone takes {n_template} tokens and the label or target after it {reserve}, \
         more than the {max_length} there is room for: give a larger --max-length or a shorter template"
    )]
    TooLong {
        /// The line of the first such example.
        location: Location,
        /// Tokens of the template with empty fields.
        n_template: usize,
        /// Tokens reserved for the label or target.
        reserve: usize,
        /// Maximum number of tokens of template, text and label.
        max_length: usize,
    },
    /// An example without tokens.
    #[error(
        "{location}: no tokens at all, the text is empty and this tokenizer puts none before it: give the template words of its own"
    )]
    Empty {
        /// The line.
        location: Location,
    },
    /// No token of the text stays the same when a label or target follows it.
    #[error(
        "{location}: the text and what follows it share their first token, and this tokenizer puts none before a text: give \
         the template words of its own"
    )]
    NoSeam {
        /// The line.
        location: Location,
    },
    /// A label adds no token to a text.
    #[error(
        "{location}: the string {string:?} of a label adds no token to the text; choose another string with --labels"
    )]
    NoLabelTokens {
        /// The line.
        location: Location,
        /// The label's text.
        string: String,
    },
    /// A field of the template could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A text could not be put into its chat.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A text could not be tokenised.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// The settings of the encoding.
#[derive(Clone, Copy, Debug)]
pub struct Encoder<'a> {
    /// How texts are joined and tokenised.
    pub joiner: Joiner<'a>,
    /// The text around the fields.
    pub template: &'a Template,
    /// The field for `{text}`; guessed if not set.
    pub text_field: Option<&'a str>,
    /// Maximum number of tokens of template, text and label together, without virtual tokens.
    pub max_length: usize,
    /// Whether the model continues the texts itself, instead of scoring labels after them.
    pub opens: bool,
}

/// The context of one example: all its tokens before the label or target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedText {
    /// `[T]` token ids, at least one, including leading special tokens.
    pub tokens: Vec<u32>,
    /// The text in the template, after truncation.
    pub text: String,
    /// Whether a field was truncated.
    pub cut: bool,
}

impl Encoder<'_> {
    /// The context of every row, in order.
    ///
    /// `reserve(row)` is the number of tokens reserved for what follows that row's context: the longest label, or its own
    /// target. If a context leaves less space, its longest field is truncated from the end, at a character boundary, so
    /// that one more character would be too long; if it is too long even without that field, the next longest is truncated
    /// too. The template and what follows it are never truncated.
    pub fn encode(
        &self,
        dataset: &Dataset,
        reserve: impl Fn(usize) -> usize,
    ) -> Result<Vec<EncodedText>, EncodeError> {
        let slots = slot_fields(self.template, dataset, self.text_field)?;
        let values = |row| slots.values(dataset, row);
        let mut texts = Vec::with_capacity(dataset.n());
        for row in 0..dataset.n() {
            texts.push(self.template.render_values(&values(row)?));
        }
        let mut contexts = self.tokens(&texts)?;

        let room = |row| self.max_length.saturating_sub(reserve(row));
        let too_long: Vec<usize> =
            (0..contexts.len()).filter(|&row| contexts[row].len() > room(row)).collect();
        let mut cuts = Vec::with_capacity(too_long.len());
        if !too_long.is_empty() {
            let n_template = self.joiner.n_tokens(&self.template.render_values(&[]))?;
            for row in too_long {
                if n_template > room(row) {
                    let (location, reserve) = (dataset.location(row), reserve(row));
                    return Err(EncodeError::TooLong {
                        location,
                        n_template,
                        reserve,
                        max_length: self.max_length,
                    });
                }
                cuts.push(Cut::new(row, room(row), values(row)?, contexts[row].len()));
            }
        }
        let mut is_cut = vec![false; contexts.len()];
        for (row, text, tokens) in self.cut(cuts)? {
            texts[row] = text;
            contexts[row] = tokens;
            is_cut[row] = true;
        }
        if let Some(row) = contexts.iter().position(Vec::is_empty) {
            return Err(EncodeError::Empty { location: dataset.location(row) });
        }
        let encoded = contexts.into_iter().zip(texts).zip(is_cut);
        Ok(encoded.map(|((tokens, text), cut)| EncodedText { tokens, text, cut }).collect())
    }

    fn tokens(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, EncodeError> {
        if self.opens { self.joiner.openings(texts) } else { self.joiner.contexts(texts) }
    }

    /// Searches for all cuts at once, one batch of renderings per round, so that every core has work.
    fn cut(&self, mut cuts: Vec<Cut<'_>>) -> Result<Vec<(usize, String, Vec<u32>)>, EncodeError> {
        let mut done = Vec::with_capacity(cuts.len());
        while !cuts.is_empty() {
            let texts: Vec<String> =
                cuts.iter().map(|cut| self.template.render_values(&cut.trial())).collect();
            let contexts = self.tokens(&texts)?;
            let mut unfinished = Vec::with_capacity(cuts.len());
            for (mut cut, tokens) in cuts.into_iter().zip(contexts) {
                cut.take_result(tokens);
                match cut.finished() {
                    Some((length, tokens)) => {
                        cut.next = length;
                        done.push((cut.row, self.template.render_values(&cut.trial()), tokens));
                    }
                    None => unfinished.push(cut),
                }
            }
            cuts = unfinished;
        }
        Ok(done)
    }
}

/// Number of truncated examples.
pub fn n_cut(texts: &[EncodedText]) -> usize {
    texts.iter().filter(|text| text.cut).count()
}

/// The search for how much of a row's longest field fits. Lengths are in bytes and always at character boundaries. The
/// search ends when there is no boundary between the longest length known to fit and the shortest known not to.
struct Cut<'d> {
    row: usize,
    /// The number of tokens available.
    room: usize,
    /// One value per slot; removed fields are empty.
    values: Vec<&'d str>,
    /// The slot to truncate, the one with the most characters.
    slot: usize,
    /// The longest length known to fit, with its tokens.
    fits: Option<(usize, Vec<u32>)>,
    /// The shortest length known not to fit.
    too_long: usize,
    /// The length to try next.
    next: usize,
    /// Distance in bytes from a known length to the next try while only one side is known; doubled each time.
    stride: usize,
}

impl<'d> Cut<'d> {
    fn new(row: usize, room: usize, values: Vec<&'d str>, n_tokens: usize) -> Self {
        let mut cut = Self { row, room, values, slot: 0, fits: None, too_long: 0, next: 0, stride: 0 };
        cut.begin_longest(n_tokens);
        cut
    }

    /// Starts with the currently longest field, with a first guess from the share of the tokens that fits.
    fn begin_longest(&mut self, n_tokens: usize) {
        let length = |slot: &usize| self.values[*slot].chars().count();
        // `max_by_key` returns the last one on a tie; reversed, the first.
        self.slot = (0..self.values.len()).rev().max_by_key(length).unwrap_or(0);
        let n_bytes = self.field().len();
        self.too_long = n_bytes;
        let guess = (n_bytes as u128 * self.room as u128 / n_tokens.max(1) as u128) as usize;
        self.stride = (guess / 16).max(8);
        self.next = self.within(guess);
    }

    fn field(&self) -> &'d str {
        self.values.get(self.slot).copied().unwrap_or("")
    }

    /// The values with the field truncated to the length to try.
    fn trial(&self) -> Vec<&'d str> {
        let mut values = self.values.clone();
        if let Some(value) = values.get_mut(self.slot) {
            *value = &value[..self.next];
        }
        values
    }

    fn take_result(&mut self, tokens: Vec<u32>) {
        let n_tokens = tokens.len();
        if n_tokens <= self.room {
            self.fits = Some((self.next, tokens));
        } else if self.next > 0 {
            self.too_long = self.next;
        } else {
            // It does not fit even without this field: remove it and truncate the next. All fields empty fit, as checked
            // before.
            self.values[self.slot] = "";
            return self.begin_longest(n_tokens);
        }
        let is_below_known = self.too_long < self.field().len();
        let target = match &self.fits {
            Some((fits, _)) if is_below_known => fits + (self.too_long - fits) / 2,
            Some((fits, _)) => fits + self.stride,
            None => self.too_long.saturating_sub(self.stride),
        };
        self.stride = self.stride.saturating_mul(2);
        self.next = self.within(target);
    }

    /// The longest length that fits and its tokens, once there is nothing left to try.
    fn finished(&mut self) -> Option<(usize, Vec<u32>)> {
        let (fits, _) = self.fits.as_ref()?;
        if self.field().ceil_char_boundary(fits + 1) < self.too_long {
            return None;
        }
        self.fits.take()
    }

    /// The boundary at or before `target` that is above the lengths that fit and below those that do not.
    fn within(&self, target: usize) -> usize {
        let field = self.field();
        let lowest = self.fits.as_ref().map_or(0, |(fits, _)| field.ceil_char_boundary(fits + 1));
        let highest = field.floor_char_boundary(self.too_long.saturating_sub(1));
        field.floor_char_boundary(target).max(lowest).min(highest)
    }
}
