//! Where a text ends and its label or target begins, in tokens.
//!
//! The tokens of a text with its label are those of both as one text, split behind the text: a tokenizer that puts a space
//! in front of every text, takes the space between two words to the second or joins characters across the seam does what it
//! does in running text. Tokens on which the text alone and the text with each of its labels agree are the context; all that
//! comes after them is the label's. (The evaluation harness of EleutherAI splits in the same place, wherever the context alone
//! has the tokens that it has with the label.)

use std::collections::{BTreeMap, BTreeSet};

use foreword_backbone::kernels::Token;
use foreword_backbone::tokenizer::{MarkedText, Tokenizer, TokenizerError};
use rayon::prelude::*;

use crate::chat::Chat;
use crate::encode::EncodeError;
use crate::settings::Joining;
use crate::template::Template;
use crate::verbalizer::Verbalizer;

/// How texts and what follows them become tokens.
#[derive(Clone, Copy, Debug)]
pub struct Joiner<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The chat that texts stand in, where there is one.
    pub chat: Option<&'a Chat>,
    /// How labels and targets are joined to texts.
    pub joining: Joining,
}

/// A text in tokens, with what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// `[T]` tokens of the text that all answers leave as they are.
    pub context: Vec<Token>,
    /// The tokens of each answer behind those.
    pub answers: Vec<Vec<Token>>,
}

/// A text and an answer as one text. Between them there are never two spaces, one of the text's and one of the answer's.
#[must_use]
pub fn joint(text: &str, answer: &str) -> String {
    let answer = if text.ends_with(' ') { answer.trim_start_matches(' ') } else { answer };
    format!("{text}{answer}")
}

/// Whether a word that follows this text stands after a space in running text: not behind white space, an opening bracket or
/// quotation mark, an equals sign or the like, nor in scripts that put no spaces between words.
#[must_use]
pub fn takes_space(before: &str) -> bool {
    match before.chars().next_back() {
        None => false,
        Some('"') => before.matches('"').count().is_multiple_of(2),
        Some('>') => before.ends_with("->") || before.ends_with("=>"),
        Some(last) => !last.is_whitespace() && !is_unspaced(last) && !"([{<='`/\\#@$_“‘«¿¡".contains(last),
    }
}

/// Whether `after` is a word that is meant to stand after a space behind `before`: "Sentiment:" and "positive".
#[must_use]
pub fn is_space_meant(before: &str, after: &str) -> bool {
    let is_word = |first: char| first.is_alphanumeric() && !is_unspaced(first);
    takes_space(before) && after.chars().next().is_some_and(is_word)
}

/// Whether a character is of a script that puts no spaces between words, or of its full-width punctuation.
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

/// Labels' strings as they are meant behind a text, and which of them had to be changed for that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitted {
    /// From label to string.
    pub labels: BTreeMap<String, String>,
    /// Labels whose string got a space in front.
    pub spaced: Vec<String>,
    /// Labels whose string lost a space that the text has already.
    pub trimmed: Vec<String>,
}

/// Puts a space in front of the strings that are meant to have one behind a text of this template, and takes one off where the
/// template ends in a space already. A chat template says itself whether it puts a space before an answer. Labels that a space
/// alone tells apart are left as they are.
#[must_use]
pub fn fitted(labels: &BTreeMap<String, String>, template: &Template, chat: Option<&Chat>) -> Fitted {
    let before = template.sample();
    // One word among the labels shows how all are meant: "5" and "-1", "good" and ":(".
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

/// The BOS token, where the tokenizer puts it before every text and the template begins with it as well: texts would begin with
/// it twice.
///
/// # Errors
/// If the template's own text can't be tokenised.
pub fn repeated_bos(template: &Template, tokenizer: &Tokenizer) -> Result<Option<Token>, TokenizerError> {
    let tokens = tokenizer.encode_context(&template.render(|_| "x"))?;
    let second = tokens.get(tokenizer.leading().len()).copied();
    Ok(tokenizer.bos().filter(|&bos| second == Some(bos)))
}

/// The strings of labels that have none of their own: their names, after a space where the template [takes one](takes_space) or a
/// chat template puts one.
pub fn default_strings<S: AsRef<str>>(
    names: impl IntoIterator<Item = S>,
    template: &Template,
    chat: Option<&Chat>,
) -> BTreeMap<String, String> {
    let is_spaced = chat.map_or_else(|| takes_space(&template.sample()), Chat::is_spaced);
    Verbalizer::spaced_strings(names, is_spaced)
}

impl Joiner<'_> {
    /// The tokens of every text, up to its label or target.
    pub(crate) fn contexts(&self, texts: &[String]) -> Result<Vec<Vec<Token>>, EncodeError> {
        match self.chat {
            Some(_) => texts.par_iter().map(|text| self.context(text)).collect(),
            None => Ok(self.tokenizer.encode_contexts(texts)?),
        }
    }

    /// The tokens of a text, up to its label or target.
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

    /// The tokens of a text that the model itself goes on with. A space at the end belongs to the word that comes.
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

    /// A text, and each of the labels that may follow it. `context`: the tokens of the text alone.
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
        let agreed = wholes.iter().map(|whole| agreement(whole, context)).min();
        let n = agreed.unwrap_or(context.len());
        Ok(Joined {
            context: context[..n].to_vec(),
            answers: wholes.into_iter().map(|whole| whole[n..].to_vec()).collect(),
        })
    }

    /// A text and its target. `opening`: the tokens of the text that the model goes on with.
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
        let n = agreement(&whole, opening);
        Ok((whole[..n].to_vec(), whole[n..].to_vec()))
    }

    /// The tokens of an answer on its own, as earlier versions joined it.
    pub(crate) fn apart(&self, answer: &str) -> Result<Vec<Token>, TokenizerError> {
        match self.chat {
            Some(_) => self.tokenizer.encode_verbatim(answer),
            None => self.tokenizer.encode_joined(answer),
        }
    }

    /// The tokens of the text with each of these answers behind it.
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

    /// How many tokens a text has, which need not be one that a chat template takes.
    pub(crate) fn n_tokens(&self, text: &str) -> Result<usize, EncodeError> {
        match self.chat {
            Some(chat) => Ok(chat.n_tokens(self.tokenizer, text)?),
            None => Ok(self.tokenizer.encode_context(text)?.len()),
        }
    }
}

/// How many tokens two sequences have in common at their beginning.
fn agreement(one: &[Token], other: &[Token]) -> usize {
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
