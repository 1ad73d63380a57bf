//! Generation by requests that come and go: one token at a time, each computed once, with all requests in one forward pass
//! without padding.
//!
//! A request brings its own prompt, placement and settings. Its rows depend only on the rows above them, and its samples
//! only on its own seed, so its result is the same, to the bit, as if it ran alone.

use std::collections::VecDeque;

use foreword_backbone::kernels::{Backend, Forest, Parent, Token};
use foreword_backbone::tokenizer::TokenizerError;
use foreword_backbone::{BackboneError, Input, Model, Save};

use super::batch::{Batch, Item};
use super::blocks::{Blocks, Piece};
use super::example::MaskedSpan;
use super::kv_pool::{KvPool, Lease, PoolError};
use super::prefix::{Anchor, AnchorError, PrefixState};
use super::sampling::{LogProbs, Sampler, Sampling};

/// Limits of a generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of running requests; the others wait.
    pub n_running: usize,
    /// Maximum number of prefill tokens computed in a step; a single longer request is allowed.
    pub n_prefill_tokens: usize,
    /// Maximum size of the requests' keys and values, in bytes.
    pub kv_bytes: u64,
}

/// A request to generate a text.
pub struct Request<B: Backend> {
    /// The placed prompt, or the bare model.
    pub prefix: PrefixState<B>,
    /// All tokens to continue, including those of the prefix.
    pub context: Vec<Token>,
    /// Maximum number of new tokens; fewer if the model's context ends before.
    pub max_tokens: usize,
    /// How tokens are sampled.
    pub sampling: Sampling,
    /// The stream of random numbers of the seed, so that requests with the same seed differ.
    pub stream: u64,
    /// Strings that end the text and are not part of it. An empty string is ignored.
    pub stop: Vec<String>,
    /// A token that ends the text, in addition to the model's end tokens.
    pub end: Option<Token>,
    /// Whether the text begins with a space that is not part of it.
    pub is_spaced: bool,
    /// What to report during generation.
    pub tell: Tell,
}

// Derived, it would need a backend that can be cloned.
impl<B: Backend> Clone for Request<B> {
    fn clone(&self) -> Self {
        Self { prefix: self.prefix.clone(), context: self.context.clone(), stop: self.stop.clone(), ..*self }
    }
}

/// What to report of a request during generation. Completion is always reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tell {
    /// The text as it grows.
    pub text: bool,
    /// The tokens with their log-probabilities, and this number of the most likely tokens.
    pub log_probs: Option<usize>,
}

/// The id of a request; a generator never uses an id twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// Its context does not match its prefix.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// It contains a token without an embedding.
    #[error("there is no token {token}: the model has {vocab}")]
    NoSuchToken {
        /// The token.
        token: Token,
        /// Number of tokens of the model.
        vocab: usize,
    },
    /// It leaves no space for a new token.
    #[error("the prompt and the text take {positions} positions, and the model has {context}")]
    TooLong {
        /// Positions up to the first new token.
        positions: usize,
        /// Positions of the model.
        context: usize,
    },
    /// Its keys and values never fit.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end token or a stop string.
    Stop,
    /// The length limit.
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

/// A generated text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Its tokens, without the end token.
    pub tokens: Vec<Token>,
    /// The text, truncated before a stop string.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// Why a text could not be completed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Logits that are not finite.
    #[error("the model's logits are not finite numbers: its weights or the prompt may be damaged")]
    NotFinite,
    /// Tokens that do not decode to text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// An event of a request.
#[derive(Debug)]
pub enum Output<'a> {
    /// A token was sampled, including the end token; sent if log-probabilities are requested.
    Token {
        /// The token.
        token: Token,
        /// Its log-probabilities.
        log_probs: LogProbs,
    },
    /// More of its text is final.
    Text(&'a str),
    /// It is complete.
    Done(Generated),
    /// It failed.
    Failed(RequestError),
}

/// Generates the texts of requests. Requests are admitted and cancelled between steps; each step samples one token for
/// every running request.
pub struct Generator<'m, B: Backend> {
    model: &'m Model<B>,
    limits: Limits,
    pool: KvPool<B>,
    waiting: VecDeque<Waiting<B>>,
    running: Vec<Text>,
    next: u64,
}

/// A request that has not started.
struct Waiting<B: Backend> {
    id: RequestId,
    request: Request<B>,
    place: Anchor<B>,
    /// Rows to prefill before its first token, and its total memory.
    n_prefill: usize,
    n_rows: usize,
}

impl<'m, B: Backend> Generator<'m, B> {
    /// A generator without requests.
    #[must_use]
    pub fn new(model: &'m Model<B>, limits: Limits) -> Self {
        let pool = KvPool::new(&model.backbone, limits.kv_bytes);
        Self { model, limits, pool, waiting: VecDeque::new(), running: Vec::new(), next: 0 }
    }

    /// The pool of keys and values.
    #[must_use]
    pub fn pool(&self) -> &KvPool<B> {
        &self.pool
    }

    /// Number of requests that wait for their turn or for memory.
    #[must_use]
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Number of running requests.
    #[must_use]
    pub fn n_running(&self) -> usize {
        self.running.len()
    }

    /// Admits a request. It starts in the next step with enough space, after those that already wait.
    ///
    /// # Errors
    /// If it can never fit, or does not match its prefix.
    pub fn admit(&mut self, mut request: Request<B>) -> Result<RequestId, AdmitError> {
        let vocab = self.model.backbone.spec().vocab;
        if let Some(&token) = request.context.iter().find(|&&token| token as usize >= vocab) {
            return Err(AdmitError::NoSuchToken { token, vocab });
        }
        let place = request.prefix.place(&request.context, MaskedSpan::NONE)?;
        let n_prefill = Item::new(&request.prefix, &request.context, place.clone()).cost();
        let positions = place.path.last().map_or(0, Piece::end) + n_prefill;
        let context = self.model.backbone.spec().context;
        if positions > context {
            return Err(AdmitError::TooLong { positions, context });
        }
        // The last token is not computed.
        request.max_tokens = request.max_tokens.clamp(1, context - positions + 1);
        let n_rows = n_prefill + request.max_tokens - 1;
        self.pool.check(&place.path, n_rows)?;
        let id = RequestId(self.next);
        self.next += 1;
        self.waiting.push_back(Waiting { id, request, place, n_prefill, n_rows });
        Ok(id)
    }

    /// Ends a request immediately and frees its memory; returns whether it existed.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let n = self.waiting.len();
        self.waiting.retain(|waiting| waiting.id != id);
        let running = self.running.iter().position(|text| text.id == id);
        if let Some(running) = running {
            let text = self.running.remove(running);
            self.pool.release(text.lease);
        }
        self.waiting.len() < n || running.is_some()
    }

    /// Starts waiting requests as far as space permits, and samples the next token of all running ones. Returns whether
    /// there is more to do.
    ///
    /// # Errors
    /// If the model fails.
    pub fn step(&mut self, on_output: &mut dyn FnMut(RequestId, Output<'_>)) -> Result<bool, BackboneError> {
        let mut logits = self.next_logits()?;
        let begun = self.begin(&mut logits)?;
        self.running.extend(begun);
        let mut left = Vec::with_capacity(self.running.len());
        let vocab = self.model.backbone.spec().vocab;
        for (mut text, logits) in
            std::mem::take(&mut self.running).into_iter().zip(logits.chunks_exact(vocab))
        {
            match text.go_on(self.model, logits, on_output) {
                Ok(None) => {
                    left.push(text);
                    continue;
                }
                Ok(Some(generated)) => on_output(text.id, Output::Done(generated)),
                Err(error) => on_output(text.id, Output::Failed(error)),
            }
            self.pool.release(text.lease);
        }
        self.running = left;
        Ok(!self.running.is_empty() || !self.waiting.is_empty())
    }

    /// The logits after every text's newest token, `[N, V]`. Stores their keys and values.
    fn next_logits(&mut self) -> Result<Vec<B::Element>, BackboneError> {
        let newest: Vec<Token> = self.running.iter().filter_map(|text| text.tokens.last().copied()).collect();
        if newest.is_empty() {
            return Ok(Vec::new());
        }
        let backbone = &self.model.backbone;
        let (context, paths) = self.pool.context(self.running.iter().map(|text| &text.lease));
        let mut forest = Forest::new();
        for path in paths {
            forest.push(Parent::Context(path), 1);
        }
        let wanted: Vec<usize> = (0..newest.len()).collect();
        let rows = backbone.embed(&newest);
        let input =
            Input { rows, forest: &forest, context: &context, output_rows: &wanted, save: Save::None };
        let output = backbone.forward(input)?;
        for (row, text) in self.running.iter_mut().enumerate() {
            self.pool.append(backbone, &mut text.lease, (&output.key_values, row..row + 1));
        }
        Ok(backbone.logits(&output.hidden))
    }

    /// Starts as many waiting requests as fit, and adds their logits.
    fn begin(&mut self, logits: &mut Vec<B::Element>) -> Result<Vec<Text>, BackboneError> {
        let Self { model, limits, pool, waiting, running, .. } = self;
        let backbone = &model.backbone;
        let (mut begun, mut places, mut leases) = (Vec::new(), Vec::new(), Vec::new());
        let mut n_tokens = 0;
        while let Some(next) = waiting.front()
            && running.len() + begun.len() < limits.n_running
            && (begun.is_empty() || n_tokens + next.n_prefill <= limits.n_prefill_tokens)
            && let Ok(lease) = pool.lease(&next.place.path, next.n_rows)
        {
            n_tokens += next.n_prefill;
            leases.push(lease);
            if let Some(Waiting { id, request, place, .. }) = waiting.pop_front() {
                begun.push((id, request));
                places.push(place);
            }
        }
        if begun.is_empty() {
            return Ok(Vec::new());
        }
        let mut items: Vec<Item<'_, B>> = Vec::with_capacity(begun.len());
        for ((_, request), place) in begun.iter().zip(places) {
            items.push(Item::new(&request.prefix, &request.context, place));
        }
        let batch = match Batch::new(backbone, &items, Blocks::new(), Save::None) {
            Ok(batch) => batch,
            Err(error) => {
                leases.into_iter().for_each(|lease| pool.release(lease));
                return Err(error);
            }
        };
        for (i, lease) in leases.iter_mut().enumerate() {
            batch.computed(i).for_each(|rows| pool.append(backbone, lease, rows));
        }
        logits.extend(backbone.logits(&batch.output.hidden));
        drop(items);
        let text = |((id, request), lease)| Text::new(id, request, lease);
        Ok(begun.into_iter().zip(leases).map(text).collect())
    }
}

/// A running text.
struct Text {
    id: RequestId,
    /// The location of its keys and values.
    lease: Lease,
    sampler: Sampler,
    max_tokens: usize,
    stop: Vec<String>,
    end: Option<Token>,
    is_spaced: bool,
    tell: Tell,
    tokens: Vec<Token>,
    /// The text so far, if requested.
    written: String,
    /// Bytes of it already reported.
    n_told: usize,
    finish_reason: Option<FinishReason>,
}

impl Text {
    fn new<B: Backend>(id: RequestId, request: Request<B>, lease: Lease) -> Self {
        let Request { context, max_tokens, sampling, stream, mut stop, end, is_spaced, tell, .. } = request;
        stop.retain(|stop| !stop.is_empty());
        Self {
            id,
            lease,
            sampler: Sampler::new(sampling, stream, &context),
            max_tokens,
            stop,
            end,
            is_spaced,
            tell,
            tokens: Vec::new(),
            written: String::new(),
            n_told: 0,
            finish_reason: None,
        }
    }

    /// Samples a token from these logits, `[V]`; returns the text if it ends there.
    fn go_on<B: Backend>(
        &mut self,
        model: &Model<B>,
        logits: &[B::Element],
        on_output: &mut dyn FnMut(RequestId, Output<'_>),
    ) -> Result<Option<Generated>, RequestError> {
        let token = self.sampler.draw(logits).ok_or(RequestError::NotFinite)?;
        if let Some(n_top) = self.tell.log_probs {
            let log_probs = LogProbs::of(logits, token, n_top);
            on_output(self.id, Output::Token { token, log_probs });
        }
        self.take(model, token)?;
        let id = self.id;
        if let (true, Some(more)) = (self.tell.text, self.more()) {
            on_output(id, Output::Text(more));
        }
        let Some(finish_reason) = self.finish_reason else { return Ok(None) };
        if !self.follows() {
            self.written = self.decode(model)?;
        }
        let (tokens, text) = (std::mem::take(&mut self.tokens), std::mem::take(&mut self.written));
        Ok(Some(Generated { tokens, text, finish_reason }))
    }

    /// Whether the text is decoded after every token, not only at its end.
    fn follows(&self) -> bool {
        self.tell.text || !self.stop.is_empty()
    }

    /// Appends a token, and checks whether the text ends there.
    fn take<B: Backend>(&mut self, model: &Model<B>, token: Token) -> Result<(), TokenizerError> {
        if model.end_tokens.contains(&token) || self.end == Some(token) {
            self.finish_reason = Some(FinishReason::Stop);
            return Ok(());
        }
        self.tokens.push(token);
        self.sampler.see(token);
        if self.tokens.len() == self.max_tokens {
            self.finish_reason = Some(FinishReason::Length);
        }
        if self.follows() {
            self.written = self.decode(model)?;
            if let Some(end) = self.stop.iter().filter_map(|stop| self.written.find(stop.as_str())).min() {
                self.written.truncate(end);
                self.finish_reason = Some(FinishReason::Stop);
            }
        }
        Ok(())
    }

    fn decode<B: Backend>(&self, model: &Model<B>) -> Result<String, TokenizerError> {
        let text = model.tokenizer.decode_joined(&self.tokens)?;
        Ok(match text.strip_prefix(' ') {
            Some(without) if self.is_spaced => without.to_owned(),
            _ => text,
        })
    }

    /// The newly final part of the text.
    fn more(&mut self) -> Option<&str> {
        let end = if self.finish_reason.is_some() {
            self.written.len()
        } else {
            n_certain(&self.written, &self.stop)
        };
        let more = self.written.get(self.n_told..end).filter(|more| !more.is_empty())?;
        self.n_told = end;
        Some(more)
    }
}

/// The number of final bytes of a growing text: all but the beginning of a character or of a stop string at its end.
fn n_certain(written: &str, stop: &[String]) -> usize {
    let text = written.trim_end_matches('\u{fffd}');
    let begun = |stop: &String| {
        let cuts = stop.char_indices().map(|(cut, _)| cut).skip(1);
        cuts.filter(|&cut| text.ends_with(&stop[..cut])).max().unwrap_or(0)
    };
    text.len() - stop.iter().map(begun).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_the_beginning_of_a_stop_string_or_of_a_character_is_held_back() {
        let stop = ["\n\n".to_owned(), "END".to_owned()];
        for (written, certain) in [
            ("Good f", "Good f"),
            ("Good fo\u{fffd}", "Good fo"),
            ("Good foö E", "Good foö "),
            ("Good foö EN", "Good foö "),
            ("Good foö ENO", "Good foö ENO"),
            ("Good foö ENO\n", "Good foö ENO"),
        ] {
            assert_eq!(&written[..n_certain(written, &stop)], certain, "{written:?}");
        }
    }
}
