//! Rewrites a template's source so that our Jinja reads it as transformers' does: line ends, string literals, and
//! transformers' own tags that have no effect here.
//!
//! jinja2 reads a string literal as Python does: `"Paris.\⏎"` has no line end, `\v` is one character, `\d` is two. Our
//! Jinja knows fewer escapes, so each literal is decoded here and written again with the escapes that both know.

/// A syntax error, and its line, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) line: usize,
    pub(super) reason: String,
}

/// The source with normalised line ends, string literals and tags. Lines keep their numbers.
pub(super) fn understood(source: &str) -> Result<String, Unreadable> {
    // As jinja2, before anything else.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut written = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(start) = rest.find('{') {
        let (before, tag) = rest.split_at(start);
        written.push_str(before);
        let n_read = match tag.as_bytes().get(1) {
            Some(b'#') => copied(tag, tag.find("#}").map(|end| end + 2), &mut written),
            Some(b'%') => match bare_name(tag) {
                Some(("raw", end)) => copied(tag, raw_end(&tag[end..]).map(|more| end + more), &mut written),
                // They mark the assistant's text, which does not matter here: the text is copied.
                Some((name @ ("generation" | "endgeneration"), end)) => {
                    let other = if name == "generation" { "with" } else { "endwith" };
                    written.push_str(&tag[..end].replacen(name, other, 1));
                    end
                }
                _ => code(tag, "%}", &mut written)?,
            },
            Some(b'{') => code(tag, "}}", &mut written)?,
            _ => copied(tag, Some(1), &mut written),
        };
        rest = &tag[n_read..];
    }
    written.push_str(rest);
    Ok(written)
}

/// Copies this many bytes, or all without an end; returns the number of bytes copied.
fn copied(tag: &str, end: Option<usize>, written: &mut String) -> usize {
    let end = end.unwrap_or(tag.len());
    written.push_str(&tag[..end]);
    end
}

/// The name in a tag that contains nothing else, and the end of the tag.
fn bare_name(tag: &str) -> Option<(&str, usize)> {
    let end = tag.find("%}")? + 2;
    let inside = tag[2..end - 2].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
    inside.bytes().all(|byte| byte.is_ascii_alphabetic()).then_some((inside, end))
}

/// The end of the tag that closes a raw block.
fn raw_end(raw: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += raw[at..].find("{%")?;
        match bare_name(&raw[at..]) {
            Some(("endraw", end)) => return Some(at + end),
            _ => at += 2,
        }
    }
}

/// Copies the inside of `{{ }}` or `{% %}` with rewritten string literals; returns the number of bytes read.
fn code(tag: &str, close: &str, written: &mut String) -> Result<usize, Unreadable> {
    let mut at = 2;
    let mut depth = 0usize;
    let mut copied = 0;
    while let Some(byte) = tag.as_bytes().get(at) {
        match byte {
            b'\'' | b'"' => {
                let inside = &tag[at + 1..];
                let Some(end) = literal_end(inside, *byte) else { break };
                let literal = &inside[..end];
                if literal.contains('\\') {
                    let value = value(literal).map_err(|reason| Unreadable {
                        line: written.matches('\n').count() + tag[copied..at].matches('\n').count() + 1,
                        reason,
                    })?;
                    written.push_str(&tag[copied..at]);
                    write_literal(&value, char::from(*byte), written);
                    written.extend(literal.matches('\n'));
                    copied = at + end + 2;
                }
                at += end + 1;
            }
            b'(' | b'[' | b'{' => depth += 1,
            _ if depth == 0 && tag.as_bytes()[at..].starts_with(close.as_bytes()) => {
                at += close.len();
                written.push_str(&tag[copied..at]);
                return Ok(at);
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    // Without its end: the parser will report it.
    written.push_str(&tag[copied..]);
    Ok(tag.len())
}

/// The end of a literal whose opening quote has been read.
fn literal_end(inside: &str, quote: u8) -> Option<usize> {
    let mut escaped = false;
    inside.bytes().position(|byte| {
        let ends = !escaped && byte == quote;
        escaped = !escaped && byte == b'\\';
        ends
    })
}

/// The value of a literal in Python.
fn value(literal: &str) -> Result<String, String> {
    let mut value = String::with_capacity(literal.len());
    let mut rest = literal.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            value.push(character);
            continue;
        }
        match rest.next() {
            None | Some('\n') => {}
            Some(same @ ('\\' | '\'' | '"')) => value.push(same),
            Some('a') => value.push('\x07'),
            Some('b') => value.push('\x08'),
            Some('f') => value.push('\x0c'),
            Some('n') => value.push('\n'),
            Some('r') => value.push('\r'),
            Some('t') => value.push('\t'),
            Some('v') => value.push('\x0b'),
            Some('x') => value.push(by_number(&mut rest, 'x', 2)?),
            Some('u') => value.push(by_number(&mut rest, 'u', 4)?),
            Some('U') => value.push(by_number(&mut rest, 'U', 8)?),
            Some('N') => {
                return Err("a string has \\N{…}, the name of a character, which is not read: write the \
                            character itself"
                    .to_owned());
            }
            Some(digit @ '0'..='7') => {
                let mut number = digit.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = rest.as_str().chars().next().and_then(|c| c.to_digit(8)) else { break };
                    number = 8 * number + digit;
                    rest.next();
                }
                value.extend(char::from_u32(number));
            }
            Some(other) if other.is_ascii() => value.extend(['\\', other]),
            // Python sees the code of such a character after the backslash.
            Some(other) => {
                let number = u32::from(other);
                value.push_str(&match number {
                    0..=0xff => format!("\\x{number:02x}"),
                    0x100..=0xffff => format!("\\u{number:04x}"),
                    _ => format!("\\U{number:08x}"),
                });
            }
        }
    }
    Ok(value)
}

/// A character by its code in this many hexadecimal digits.
fn by_number(rest: &mut std::str::Chars<'_>, kind: char, n_digits: usize) -> Result<char, String> {
    let digits: String = rest.as_str().chars().take(n_digits).collect();
    let is_number = digits.len() == n_digits && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u32::from_str_radix(&digits, 16).ok().filter(|_| is_number);
    let Some(number) = number else {
        return Err(format!("a string has \\{kind} without {n_digits} hexadecimal digits behind it"));
    };
    rest.nth(n_digits - 1);
    char::from_u32(number).ok_or_else(|| {
        format!("a string has \\{kind}{digits}, which is no character: write the character itself")
    })
}

/// Writes a literal on one line, with the escapes that Python and our Jinja share.
fn write_literal(value: &str, quote: char, written: &mut String) {
    written.push(quote);
    for character in value.chars() {
        match character {
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            _ if character == quote => written.extend(['\\', quote]),
            _ => written.push(character),
        }
    }
    written.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_what_python_makes_of_them() {
        let literal = |written: &str| value(written);
        for (written, means) in [
            ("Paris.\\\nYour date.", "Paris.Your date."),
            (r#"\\ \' \" \a\b\f\n\r\t\v"#, "\\ ' \" \x07\x08\x0c\n\r\t\x0b"),
            (r"\x41\u00e9\U0001f600", "Aé\u{1f600}"),
            (r"\0\101\1012\777\8", "\0AA2\u{1ff}\\8"),
            (r"\d\/\{\%\s", r"\d\/\{\%\s"),
            (r"\é\中\😀\\é", r"\xe9\u4e2d\U0001f600\é"),
        ] {
            assert_eq!(literal(written).as_deref(), Ok(means), "{written}");
        }
        for (written, reason) in [
            (r"\x4", "\\x without 2"),
            (r"\u12g4", "\\u without 4"),
            (r"\x+1", "\\x without 2"),
            (r"\U00110000", "is no character"),
            (r"\ud83d\ude00", "\\ud83d, which is no character"),
            (r"\N{BULLET}", "\\N{…}"),
        ] {
            assert!(literal(written).unwrap_err().contains(reason), "{written}");
        }
    }

    #[test]
    fn only_literals_and_tags_are_written_anew() {
        let same = |source: &str| assert_eq!(understood(source).as_deref(), Ok(source));
        same(r"\d {# '\d' #} {% raw %}{{ '\d' }}{% endraw %} { '\d' }");
        same("{{ 'a' ~ \"b\" }}{% if x == 'c' %}{{ {'a': {'b': 1}} }}{% endif %}");
        same("{{ 'never ends }} and {{");
        same("{% raw %}{% generation %}{%- endraw -%}{{ '{% generation %}' }}");
        let becomes = |source: &str, written: &str| assert_eq!(understood(source).as_deref(), Ok(written));
        becomes(r"{{ '\d' ~ 'x' }}\d", r"{{ '\\d' ~ 'x' }}\d");
        becomes("{{ {'a': {'b': '\\d'}} }}'\\d'", "{{ {'a': {'b': '\\\\d'}} }}'\\d'");
        becomes("{%- set a = \"it's\\\n\\v\" %}", "{%- set a = \"it's\x0b\"\n %}");
        becomes("a\r\nb\rc", "a\nb\nc");
        becomes("{%- generation -%}x{% endgeneration %}", "{%- with -%}x{% endwith %}");
        let wrong = understood("a\n{{ 'b\nc' }}\n{{ '\\q' ~ \"\n\" ~ '\\x' }}").unwrap_err();
        assert_eq!(wrong.line, 5);
    }
}
