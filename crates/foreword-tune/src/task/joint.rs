//! The boundary between a text and its label or target, in tokens.
//!
//! A text and its label are tokenised together as one text and then split: so a tokenizer that adds a space before every
//! text, assigns the space between two words to the second or merges characters across the boundary behaves as in running
//! text. The tokens that the text alone and the text with each of its labels have in common are the context; all later ones
//! belong to the label. (EleutherAI's evaluation harness splits at the same point whenever the context alone has the same
//! tokens as with the label.)

use std::collections::{BTreeMap, BTreeSet};

use foreword_backbone::kernels::Token;
use foreword_backbone::tokenizer::{MarkedText, Tokenizer, TokenizerError};
use rayon::prelude::*;

use crate::chat::Chat;
use crate::encode::EncodeError;
use crate::settings::Joining;
use crate::template::Template;
use crate::verbalizer::Verbalizer;

/// How texts are joined with what follows them, and tokenised.
#[derive(Clone, Copy, Debug)]
pub struct Joiner<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The chat around the texts, if there is one.
    pub chat: Option<&'a Chat>,
    /// How labels and targets are joined to texts.
    pub joining: Joining,
}

/// A tokenised text, with what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// `[T]` tokens of the text that are the same with every answer.
    pub context: Vec<Token>,
    /// The tokens of each answer after those.
    pub answers: Vec<Vec<Token>>,
}

/// A text and an answer as one text, never with two spaces between them, one from each.
#[must_use]
pub fn joint(text: &str, answer: &str) -> String {
    let answer = if text.ends_with(' ') { answer.trim_start_matches(' ') } else { answer };
    format!("{text}{answer}")
}

/// Whether a word after this text is preceded by a space in running text: not after whitespace, an opening bracket or
/// quotation mark, an equals sign or the like, nor in scripts without spaces between words.
#[must_use]
pub fn takes_space(before: &str) -> bool {
    match before.chars().next_back() {
        None => false,
        Some('"') => before.matches('"').count().is_multiple_of(2),
        Some('>') => before.ends_with("->") || before.ends_with("=>"),
        Some(last) => !last.is_whitespace() && !is_unspaced(last) && !"([{<='`/\\#@$_“‘«¿¡".contains(last),
    }
}

/// Whether `after` is a word meant to follow `before` with a space: "Sentiment:" and "positive".
#[must_use]
pub fn is_space_meant(before: &str, after: &str) -> bool {
    let is_word = |first: char| first.is_alphanumeric() && !is_unspaced(first);
    takes_space(before) && after.chars().next().is_some_and(is_word)
}

/// Whether a character belongs to a script without spaces between words, or to its full-width punctuation.
fn is_unspaced(character: char) -> bool {
    // Thai and Lao, Burmese, Khmer; Chinese and Japanese with their punctuation; full-width forms.
    let ranges = [
        '\u{0e00}'..='\u{0eff}',
        '\u{1000}'..='\u{109f}',
        '\u{1780}'..='\u{17ff}',
        '\u{3000}'..='\u{30ff}',
        '\u{3100}'..='\u{312f}',
        '\u{31a0}'..='\u{9fff}',
        '\u{f900}'..='\u{faff}',
        '\u{ff00}'..='\u{ffef}',
        '\u{20000}'..='\u{3ffff}',
    ];
    ranges.iter().any(|range| range.contains(&character))
}

/// Label texts adjusted to the text before them, with the changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitted {
    /// Map from label to text.
    pub labels: BTreeMap<String, String>,
    /// Labels whose text gained a leading space.
    pub spaced: Vec<String>,
    /// Labels whose text lost a space that the template already has.
    pub trimmed: Vec<String>,
}

/// Adds a leading space to label texts that need one after this template, and removes one if the template already ends in a
/// space. A chat template decides itself whether a space precedes a reply. Labels that differ only by a space are not
/// changed.
#[must_use]
pub fn fitted(labels: &BTreeMap<String, String>, template: &Template, chat: Option<&Chat>) -> Fitted {
    let before = template.sample();
    // One word among the labels shows what all of them are: "5" and "-1", "good" and ":(".
    let is_spaced = match chat {
        Some(chat) => chat.is_spaced(),
        None => labels
            .values()
            .any(|string| is_space_meant(&before, string) || string.starts_with(' ') && takes_space(&before)),
    };
    let mut fitted = Fitted { labels: labels.clone(), ..Fitted::default() };
    for (name, string) in &mut fitted.labels {
        if is_spaced && !string.is_empty() && !string.starts_with(char::is_whitespace) {
            string.insert(0, ' ');
            fitted.spaced.push(name.clone());
        } else if chat.is_none() && before.ends_with(' ') && string.starts_with(' ') {
            *string = string.trim_start_matches(' ').to_owned();
            fitted.trimmed.push(name.clone());
        }
    }
    let n = |labels: &BTreeMap<String, String>| labels.values().collect::<BTreeSet<_>>().len();
    if n(&fitted.labels) < n(labels) {
        return Fitted { labels: labels.clone(), ..Fitted::default() };
    }
    fitted
}

/// The BOS token, if both the tokenizer and the template put it before every text: texts would begin with it twice.
///
/// # Errors
/// If the template's own text can't be tokenised.
pub fn repeated_bos(template: &Template, tokenizer: &Tokenizer) -> Result<Option<Token>, TokenizerError> {
    let tokens = tokenizer.encode_context(&template.render(|_| "x"))?;
    let second = tokens.get(tokenizer.leading().len()).copied();
    Ok(tokenizer.bos().filter(|&bos| second == Some(bos)))
}

/// The default texts of labels without one: their names, after a space if the template [needs one](takes_space) or a chat
/// template writes one.
pub fn default_strings<S: AsRef<str>>(
    names: impl IntoIterator<Item = S>,
    template: &Template,
    chat: Option<&Chat>,
) -> BTreeMap<String, String> {
    let is_spaced = chat.map_or_else(|| takes_space(&template.sample()), Chat::is_spaced);
    Verbalizer::spaced_strings(names, is_spaced)
}

impl Joiner<'_> {
    /// The tokens of every text, before its label or target.
    pub(crate) fn contexts(&self, texts: &[String]) -> Result<Vec<Vec<Token>>, EncodeError> {
        match self.chat {
            Some(_) => texts.par_iter().map(|text| self.context(text)).collect(),
            None => Ok(self.tokenizer.encode_contexts(texts)?),
        }
    }

    /// The tokens of a text, before its label or target.
    pub(crate) fn context(&self, text: &str) -> Result<Vec<Token>, EncodeError> {
        match self.chat {
            Some(chat) => Ok(self.tokenizer.encode_marked(&chat.marked(text)?)?.0),
            None => Ok(self.tokenizer.encode_context(text)?),
        }
    }

    /// `opening` of every text.
    pub(crate) fn openings(&self, texts: &[String]) -> Result<Vec<Vec<Token>>, EncodeError> {
        texts.par_iter().map(|text| self.opening(text)).collect()
    }

    /// The tokens of a text for the model to continue. A space at the end belongs to the next word.
    pub(crate) fn opening(&self, text: &str) -> Result<Vec<Token>, EncodeError> {
        if self.joining == Joining::Apart {
            return self.context(text);
        }
        match self.chat {
            Some(chat) => {
                let mut marked = chat.marked(text)?;
                if marked.text.ends_with(' ') {
                    marked.text.pop();
                    marked.plain.end = marked.plain.end.min(marked.text.len());
                    marked.plain.start = marked.plain.start.min(marked.plain.end);
                }
                Ok(self.tokenizer.encode_marked(&marked)?.0)
            }
            None => Ok(self.tokenizer.encode_context(text.strip_suffix(' ').unwrap_or(text))?),
        }
    }

    /// A text and each label that may follow it. `context`: the tokens of the text alone.
    ///
    /// # Errors
    /// If a text can't be tokenised or put into its chat.
    pub(crate) fn labels(
        &self,
        text: &str,
        context: &[Token],
        labels: &[String],
    ) -> Result<Joined, EncodeError> {
        if self.joining == Joining::Apart {
            let answers = labels.iter().map(|label| self.apart(label)).collect::<Result<_, _>>()?;
            return Ok(Joined { context: context.to_vec(), answers });
        }
        let wholes = self.wholes(text, labels)?;
        let agreed = wholes.iter().map(|whole| n_same(whole, context)).min();
        let n = agreed.unwrap_or(context.len());
        Ok(Joined {
            context: context[..n].to_vec(),
            answers: wholes.into_iter().map(|whole| whole[n..].to_vec()).collect(),
        })
    }

    /// A text and its target. `opening`: the tokens of the text for the model to continue.
    ///
    /// # Errors
    /// If a text can't be tokenised or put into its chat.
    pub(crate) fn target(
        &self,
        text: &str,
        opening: &[Token],
        target: &str,
    ) -> Result<(Vec<Token>, Vec<Token>), EncodeError> {
        if self.joining == Joining::Apart {
            return Ok((opening.to_vec(), self.apart(target)?));
        }
        let whole = self.wholes(text, &[target])?.swap_remove(0);
        let n = n_same(&whole, opening);
        Ok((whole[..n].to_vec(), whole[n..].to_vec()))
    }

    /// The tokens of an answer on its own, as joined by earlier versions.
    pub(crate) fn apart(&self, answer: &str) -> Result<Vec<Token>, TokenizerError> {
        match self.chat {
            Some(_) => self.tokenizer.encode_verbatim(answer),
            None => self.tokenizer.encode_joined(answer),
        }
    }

    /// The tokens of the text followed by each of these answers.
    fn wholes<S: AsRef<str>>(&self, text: &str, answers: &[S]) -> Result<Vec<Vec<Token>>, EncodeError> {
        let Some(chat) = self.chat else {
            let whole = |answer: &S| Ok(self.tokenizer.encode_context(&joint(text, answer.as_ref()))?);
            return answers.iter().map(whole).collect();
        };
        let marked = chat.marked(text)?;
        let whole = |answer: &S| {
            let whole = MarkedText { text: joint(&marked.text, answer.as_ref()), ..marked.clone() };
            Ok(self.tokenizer.encode_marked(&whole)?.0)
        };
        answers.iter().map(whole).collect()
    }

    /// Number of tokens of a text, which a chat template need not accept.
    pub(crate) fn n_tokens(&self, text: &str) -> Result<usize, EncodeError> {
        match self.chat {
            Some(chat) => Ok(chat.n_tokens(self.tokenizer, text)?),
            None => Ok(self.tokenizer.encode_context(text)?.len()),
        }
    }
}

/// Number of leading tokens that two sequences share.
pub(crate) fn n_same(one: &[Token], other: &[Token]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_is_meant_between_words_only() {
        for (before, after) in [
            ("good film\nSentiment:", "positive"),
            ("a", "positive"),
            ("Is it good?", "Yes"),
            ("Rating ->", "5"),
            ("It was", "été"),
            ("Say \"good\" or \"bad\"", "good"),
            ("[label]", "good"),
            ("감정:", "긍정"),
        ] {
            assert!(is_space_meant(before, after), "{before:?} {after:?}");
        }
        for (before, after) in [
            ("Sentiment:", " positive"),
            ("Sentiment: ", "positive"),
            ("Sentiment:\n", "positive"),
            ("Answer: (", "a"),
            ("{\"label\": \"", "a"),
            ("Answer: 'it', '", "a"),
            ("<label>", "a"),
            ("label=", "a"),
            ("Sentiment:", "\"positive\""),
            ("Sentiment:", ""),
            ("情感：", "积极"),
            ("情感", "good"),
            ("Sentiment:", "积极"),
            ("", "a"),
        ] {
            assert!(!is_space_meant(before, after), "{before:?} {after:?}");
        }
    }

    #[test]
    fn labels_are_fitted_to_the_end_of_the_template() {
        let of = |template: &str, strings: [&str; 2]| {
            let labels = ["a", "b"].into_iter().zip(strings);
            let labels = labels.map(|(name, string)| (name.to_owned(), string.to_owned())).collect();
            let fitted = fitted(&labels, &Template::parse(template).unwrap(), None);
            (fitted.labels.into_values().collect::<Vec<_>>(), fitted.spaced.len(), fitted.trimmed.len())
        };
        let strings = |one: &str, two: &str| vec![one.to_owned(), two.to_owned()];
        assert_eq!(of("{text}\nIs it good?", [" yes", "no"]), (strings(" yes", " no"), 1, 0));
        assert_eq!(of("{text}\nIs it good? ", [" yes", "no"]), (strings("yes", "no"), 0, 1));
        assert_eq!(of("{text}\nIs it good?\n", [" yes", "no"]), (strings(" yes", "no"), 0, 0));
        assert_eq!(of("{text}", ["yes", "no"]), (strings(" yes", " no"), 2, 0));
        assert_eq!(of("{text}:", [" yes", "yes"]), (strings(" yes", "yes"), 0, 0));
        assert_eq!(of("{text}:", [" yes", "(no)"]), (strings(" yes", " (no)"), 1, 0));
        assert_eq!(of("{text}:", ["5", "-1"]), (strings(" 5", " -1"), 2, 0));
        assert_eq!(of("{text} (", ["yes", "no"]), (strings("yes", "no"), 0, 0));
        let default =
            |template: &str| default_strings(["x"], &Template::parse(template).unwrap(), None)["x"].clone();
        assert_eq!(default("{text}\nLabel:"), " x");
        assert_eq!(default("{text}\nLabel: "), "x");
        assert_eq!(default("{text}\n"), "x");
        assert_eq!(default("{text} ("), "x");
        assert_eq!(default("{text}\n情感："), "x");
    }

    #[test]
    fn there_are_never_two_spaces_at_the_seam() {
        assert_eq!(joint("Answer:", " yes"), "Answer: yes");
        assert_eq!(joint("Answer: ", " yes"), "Answer: yes");
        assert_eq!(joint("Answer: ", "yes"), "Answer: yes");
        assert_eq!(joint("Answer:\n", " yes"), "Answer:\n yes");
    }
}
