//! Texts that a model writes: one token after another, each computed once, many texts at a time without padding.
//!
//! The soft prompt's keys and values are computed once for all texts, a text's once, and those of every new token once:
//! they stay in a cache that grows with the longest text. Which token is drawn depends on the seed and on the text's
//! own place among the examples, not on its batch mates.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use foreword_backbone::kernels::{Backend, Element, Forest, Parent, RowBlock, Source, Span, Token};
use foreword_backbone::{Input, KeyValues, Model, Taped};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::data::Dataset;
use crate::encode::EncodeError;
use crate::pass::{Batch, MaskedSpan, Query, micro_batches};
use crate::task::{Examples, Goal, Task, TaskError};

/// New tokens of a text where nothing else is said and the model's context leaves as much.
pub const DEFAULT_MAX_NEW_TOKENS: usize = 128;
/// Texts that are written at a time, at most.
const MOST_TEXTS: usize = 64;
/// New tokens for which the cache is enlarged at a time.
const CHUNK: usize = 32;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0: the likeliest token is taken, the first of equals.
    pub temperature: f64,
    /// Only so many of the likeliest tokens are drawn from; 0: all.
    pub top_k: usize,
    /// Only the likeliest tokens are drawn from whose probabilities together reach this share (Holtzman et al. 2020); 1: all.
    pub top_p: f64,
    /// The logit of a token that stands in the text or was written already is divided by it where positive, and
    /// multiplied where negative (Keskar et al. 2019); 1: none is.
    pub repetition_penalty: f64,
    /// What is drawn by chance is drawn from it.
    pub seed: u64,
}

impl Default for Sampling {
    /// The likeliest token, always.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// How texts are written.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct GenerateConfig {
    /// The most tokens of a text; `None`: [`DEFAULT_MAX_NEW_TOKENS`], or half of what the model's context and the task's
    /// `max_length` leave, where that is less.
    pub max_new_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Strings that end a text; they are not part of it. An empty one ends nothing.
    pub stop: Vec<String>,
    /// Tell of texts as they grow, and not only when they are whole.
    pub stream: bool,
}

impl GenerateConfig {
    /// Whether a text is decoded after every token, and not only at its end.
    fn follows_texts(&self) -> bool {
        self.stream || !self.stop.is_empty()
    }
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// By an end token, or one of the stop strings.
    Stop,
    /// By its length.
    Length,
}

impl FinishReason {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// A text that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Its tokens, without the end token.
    pub tokens: Vec<Token>,
    /// The text, cut before a stop string.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// What happens while texts are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// More of a text is certain.
    More {
        /// Which text.
        example: usize,
        /// What comes after all that was told of it before.
        text: &'a str,
    },
    /// A text is whole.
    Done {
        /// Which text.
        example: usize,
        /// The text.
        generated: &'a Generated,
    },
}

impl Task {
    /// A data set in tokens, with room for new ones, and how many of them there is room for: see
    /// [`GenerateConfig::max_new_tokens`].
    ///
    /// # Errors
    /// If a field is missing, or the template and the new tokens do not fit.
    pub fn openings<B: Backend>(
        &self,
        model: &Model<B>,
        n_virtual: usize,
        dataset: &Dataset,
        config: &GenerateConfig,
    ) -> Result<(Examples, usize), TaskError> {
        let room = self.room(model, n_virtual)?;
        let most = config.max_new_tokens.unwrap_or(DEFAULT_MAX_NEW_TOKENS.min(room / 2)).max(1);
        let examples = self.opened(model, n_virtual, dataset, most)?;
        Ok((examples, most))
    }

    /// Writes a text after every context, in the order of the examples, each of at most `most` tokens. An empty `root`
    /// is the bare model. Where `on_event` breaks it ends early, with the batches that are whole.
    ///
    /// # Errors
    /// If the placement needs a BOS that the tokenizer does not give, a path is longer than the model's context, or the
    /// model gives no numbers.
    pub fn generate<'t, B: Backend>(
        &self,
        model: &Model<B>,
        root: &[f32],
        (examples, most): (&'t Examples, usize),
        config: &GenerateConfig,
        budget: usize,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>, TaskError> {
        let shared_prefix = self.shared_prefix(model, examples, root.len() / self.row_width(model))?;
        let trunks = shared_prefix.prefill(&[root], Taped::Nothing)?;
        let query = |context: &'t Vec<Token>| Query {
            hidden: MaskedSpan::NONE,
            root: 0,
            context,
            continuations: &[],
            extended: &[],
        };
        let queries: Vec<Query<'_>> = examples.contexts.iter().map(query).collect();
        let end = match &self.goal {
            Goal::Generation(to) => Some(to.end),
            Goal::Classification(_) => None,
        };
        let writer =
            Writer { model, end, config, most, is_spaced: self.is_spaced("") || self.leaves_space() };
        let mut all = Vec::with_capacity(queries.len());
        for part in micro_batches(&shared_prefix, &trunks, &queries, budget) {
            for first in part.clone().step_by(MOST_TEXTS) {
                let queries = &queries[first..(first + MOST_TEXTS).min(part.end)];
                let groups = vec![0; queries.len()];
                let batch = Batch::new(&shared_prefix, &trunks, queries, &groups, Taped::Nothing)?;
                match writer.write(&batch, queries, first, on_event)? {
                    ControlFlow::Continue(texts) => all.extend(texts),
                    ControlFlow::Break(()) => return Ok(all),
                }
            }
        }
        Ok(all)
    }
}

/// Writes the texts of one batch.
struct Writer<'a, B: Backend> {
    model: &'a Model<B>,
    /// The token that ends the task's texts, beside those of the model.
    end: Option<Token>,
    config: &'a GenerateConfig,
    most: usize,
    /// Texts begin with a space that stands between them and the template.
    is_spaced: bool,
}

impl<B: Backend> Writer<'_, B> {
    /// The texts after the contexts of `batch`, the first of which is example `first`.
    fn write(
        &self,
        batch: &Batch<'_, B>,
        queries: &[Query<'_>],
        first: usize,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), Vec<Generated>>, TaskError> {
        let backbone = &self.model.backbone;
        let above = batch.context();
        let begin = |(i, (path, query)): (usize, (Vec<Span>, &Query<'_>))| {
            Text::new(first + i, path, query, self.config)
        };
        let mut texts: Vec<Text> = batch.paths().into_iter().zip(queries).enumerate().map(begin).collect();
        let mut cache = Cache { blocks: Vec::new(), n_new: 0 };
        let mut whole: Vec<Option<Generated>> = vec![None; texts.len()];
        let mut logits = backbone.logits(&batch.output.hidden);
        loop {
            for (text, logits) in texts.iter_mut().zip(logits.chunks_exact(backbone.spec().vocab)) {
                let Some(token) = text.draw(logits, &self.config.sampling) else {
                    return Err(TaskError::NotFinite { example: text.example + 1 });
                };
                self.take(text, token)?;
                let example = text.example;
                if let (true, Some(more)) = (self.config.stream, text.more(&self.config.stop))
                    && on_event(Event::More { example, text: more }).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
            for text in texts.extract_if(.., |text| text.finish_reason.is_some()) {
                let (example, generated) = (text.example, self.generated(text)?);
                if on_event(Event::Done { example, generated: &generated }).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                whole[example - first] = Some(generated);
            }
            if texts.is_empty() {
                return Ok(ControlFlow::Continue(whole.into_iter().flatten().collect()));
            }
            let hidden = cache.forward(self.model, &above, &mut texts)?;
            logits = backbone.logits(&hidden);
        }
    }

    /// Adds a token to a text, and sees whether it ends there.
    fn take(&self, text: &mut Text, token: Token) -> Result<(), TaskError> {
        if self.model.end_tokens.contains(&token) || self.end == Some(token) {
            text.finish_reason = Some(FinishReason::Stop);
            return Ok(());
        }
        text.tokens.push(token);
        text.seen.insert(token);
        if text.tokens.len() == self.most {
            text.finish_reason = Some(FinishReason::Length);
        }
        if self.config.follows_texts() {
            text.written = self.decode(&text.tokens)?;
            let stops = self
                .config
                .stop
                .iter()
                .filter(|stop| !stop.is_empty())
                .filter_map(|stop| text.written.find(stop.as_str()));
            if let Some(end) = stops.min() {
                text.written.truncate(end);
                text.finish_reason = Some(FinishReason::Stop);
            }
        }
        Ok(())
    }

    fn decode(&self, tokens: &[Token]) -> Result<String, TaskError> {
        let text = self.model.tokenizer.decode_joined(tokens).map_err(EncodeError::from)?;
        Ok(match text.strip_prefix(' ') {
            Some(without) if self.is_spaced => without.to_owned(),
            _ => text,
        })
    }

    fn generated(&self, text: Text) -> Result<Generated, TaskError> {
        let is_known = self.config.follows_texts();
        let written = if is_known { text.written } else { self.decode(&text.tokens)? };
        let finish_reason = text.finish_reason.unwrap_or(FinishReason::Length);
        Ok(Generated { tokens: text.tokens, text: written, finish_reason })
    }
}

/// A text that is being written.
struct Text {
    example: usize,
    /// Where its keys and values lie.
    path: Vec<Span>,
    /// Its place in the newest part of the cache.
    slot: usize,
    tokens: Vec<Token>,
    /// Tokens of the context and of the text.
    seen: BTreeSet<Token>,
    rng: ChaCha8Rng,
    /// The text so far, where somebody wants to know.
    written: String,
    /// Bytes of it that were told.
    n_told: usize,
    finish_reason: Option<FinishReason>,
}

impl Text {
    fn new(example: usize, path: Vec<Span>, query: &Query<'_>, config: &GenerateConfig) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(config.sampling.seed);
        rng.set_stream(example as u64);
        Self {
            example,
            path,
            slot: 0,
            tokens: Vec::new(),
            seen: query.context.iter().copied().collect(),
            rng,
            written: String::new(),
            n_told: 0,
            finish_reason: None,
        }
    }

    /// What has become certain since the last time: all but the beginning of a character or of a stop string.
    fn more(&mut self, stop: &[String]) -> Option<&str> {
        let mut end = self.written.len();
        if self.finish_reason.is_none() {
            end = self.written.trim_end_matches('\u{fffd}').len();
            let text = &self.written[..end];
            let begun = |stop: &String| {
                let cuts = stop.char_indices().map(|(cut, _)| cut).skip(1);
                cuts.filter(|&cut| text.ends_with(&stop[..cut])).max().unwrap_or(0)
            };
            end -= stop.iter().map(begun).max().unwrap_or(0);
        }
        let more = self.written.get(self.n_told..end).filter(|more| !more.is_empty())?;
        self.n_told = end;
        Some(more)
    }

    /// The next token by these logits, `[V]`; `None` where they are no numbers.
    fn draw<E: Element>(&mut self, logits: &[E], sampling: &Sampling) -> Option<Token> {
        let mut logits: Vec<f64> = logits.iter().map(|logit| logit.as_f64()).collect();
        if !logits.iter().all(|logit| logit.is_finite()) {
            return None;
        }
        if sampling.repetition_penalty != 1.0 {
            for &token in &self.seen {
                let logit = &mut logits[token as usize];
                *logit = if *logit > 0.0 {
                    *logit / sampling.repetition_penalty
                } else {
                    *logit * sampling.repetition_penalty
                };
            }
        }
        if sampling.temperature == 0.0 {
            return Some(crate::score::best(&logits) as Token);
        }
        // 53 random bits, as many as a number below 1 has.
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        Some(sample(&logits, sampling, uniform))
    }
}

/// The token at `uniform`, from 0 to below 1, of the distribution that temperature, top-k and top-p, in this order, leave.
fn sample(logits: &[f64], sampling: &Sampling, uniform: f64) -> Token {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    if sampling.top_k > 0 {
        // What is as likely as the last of them stays as well.
        let last = logits[order[sampling.top_k.min(order.len()) - 1]];
        order.truncate(order.partition_point(|&token| logits[token] >= last));
    }
    let largest = logits[order[0]];
    let weights: Vec<f64> =
        order.iter().map(|&token| ((logits[token] - largest) / sampling.temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    let reached = weights.iter().position(|weight| {
        sum += weight;
        sum >= sampling.top_p * total
    });
    let kept = reached.map_or(weights.len(), |last| last + 1);
    let mut left = uniform * weights[..kept].iter().sum::<f64>();
    let drawn = weights[..kept].iter().position(|weight| {
        left -= weight;
        left < 0.0
    });
    order[drawn.unwrap_or(kept - 1)] as Token
}

/// Keys and values of the new tokens: a block for every [`CHUNK`] of them, in which each text has its rows.
struct Cache<B: Backend> {
    blocks: Vec<KeyValues<B>>,
    n_new: usize,
}

impl<B: Backend> Cache<B> {
    /// The hidden states of each text's newest token, `[N texts, H]`. Remembers their keys and values.
    fn forward(
        &mut self,
        model: &Model<B>,
        above: &[&KeyValues<B>],
        texts: &mut [Text],
    ) -> Result<B::Rows, TaskError> {
        let (backbone, backend) = (&model.backbone, model.backbone.backend());
        let at = self.n_new % CHUNK;
        if at == 0 {
            self.blocks.push(backbone.zero_key_values(texts.len() * CHUNK));
            texts.iter_mut().enumerate().for_each(|(slot, text)| text.slot = slot);
        }
        let mut forest = Forest::new();
        for text in texts.iter() {
            forest.push(Parent::Context(text.path.clone()), 1);
        }
        let context: Vec<&KeyValues<B>> = above.iter().copied().chain(&self.blocks).collect();
        let newest: Vec<Token> = texts.iter().filter_map(|text| text.tokens.last().copied()).collect();
        let wanted: Vec<usize> = (0..texts.len()).collect();
        let rows = backbone.embed(&newest);
        debug_assert_eq!(rows.n_rows(), wanted.len(), "every text has a newest token");
        let input = Input { rows, forest: &forest, context: &context, wanted: &wanted, tape: Taped::Nothing };
        let output = backbone.forward(input)?;

        let source = Source::Context(context.len() - 1);
        let mut rows = Vec::with_capacity(texts.len());
        for text in texts {
            let row = text.slot * CHUNK + at;
            rows.push(row);
            match text.path.last_mut() {
                Some(span) if at > 0 && span.source == source => span.rows.end = row + 1,
                last => {
                    let position = last.map_or(0, |span| span.end());
                    text.path.push(Span { source, rows: row..row + 1, position });
                }
            }
        }
        if let Some(block) = self.blocks.last_mut() {
            block.assign(backend, &rows, &output.key_values);
        }
        self.n_new += 1;
        Ok(output.hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(written: &str) -> Text {
        let query =
            Query { hidden: MaskedSpan::NONE, root: 0, context: &[], continuations: &[], extended: &[] };
        let text = Text::new(0, Vec::new(), &query, &GenerateConfig::default());
        Text { written: written.to_owned(), ..text }
    }

    #[test]
    fn what_may_be_the_beginning_of_a_stop_string_or_of_a_character_is_held_back() {
        let stop = ["\n\n".to_owned(), "END".to_owned()];
        let mut growing = text("Good f");
        assert_eq!(growing.more(&stop), Some("Good f"));
        for (written, more) in [
            ("Good fo", Some("o")),
            ("Good fo\u{fffd}", None),
            ("Good foö E", Some("ö ")),
            ("Good foö EN", None),
            ("Good foö ENO", Some("ENO")),
            ("Good foö ENO\n", None),
        ] {
            growing.written = written.to_owned();
            assert_eq!(growing.more(&stop), more, "{written:?}");
        }
        growing.finish_reason = Some(FinishReason::Length);
        assert_eq!(growing.more(&stop), Some("\n"));
    }

    #[test]
    fn draws_follow_the_distribution_that_is_left() {
        let logits = [1.0_f64.ln(), 4.0_f64.ln(), 2.0_f64.ln(), 3.0_f64.ln()];
        let drawn = |sampling: &Sampling| -> Vec<Token> {
            (0..10).map(|i| sample(&logits, sampling, (f64::from(i) + 0.5) / 10.0)).collect()
        };
        let plain = Sampling { temperature: 1.0, ..Sampling::default() };
        assert_eq!(drawn(&plain), [1, 1, 1, 1, 3, 3, 3, 2, 2, 0]);
        assert_eq!(drawn(&Sampling { top_k: 2, ..plain }), [1, 1, 1, 1, 1, 1, 3, 3, 3, 3]);
        // 0.4 and 0.3 make 0.7; 0.69 needs both, 0.71 a third.
        assert_eq!(drawn(&Sampling { top_p: 0.69, ..plain }), drawn(&Sampling { top_k: 2, ..plain }));
        assert_eq!(drawn(&Sampling { top_p: 0.71, ..plain }), drawn(&Sampling { top_k: 3, ..plain }));
        assert_eq!(drawn(&Sampling { top_p: 1e-9, ..plain }), [1; 10]);
        // Squared weights: 16, 9, 4, 1 of 30.
        let cold = Sampling { temperature: 0.5, ..plain };
        assert_eq!(drawn(&cold), [1, 1, 1, 1, 1, 3, 3, 3, 2, 2]);
    }

    #[test]
    fn a_penalty_makes_what_was_there_less_likely_whatever_its_sign() {
        let mut text = text("");
        text.seen = BTreeSet::from([0, 2]);
        let penalty = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        assert_eq!(text.draw(&[3.0_f32, 2.0, -1.0], &penalty), Some(1));
        assert_eq!(text.draw(&[-3.0_f32, -4.0, -2.5], &penalty), Some(1));
        assert_eq!(text.draw(&[3.0_f32, 2.0, -1.0], &Sampling::default()), Some(0));
        assert_eq!(text.draw(&[f32::NAN, 2.0], &Sampling::default()), None);
    }
}
