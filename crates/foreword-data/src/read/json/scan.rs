//! The parts of valid JSON as written, which a parser would not keep. Never panics on other text.

/// The keys and values of an object.
pub(super) fn entries(text: &str) -> Vec<(String, &str)> {
    let mut scan = Scan { text, at: 0 };
    let mut entries = Vec::new();
    scan.pass_over(b'{');
    while let Some(key) = scan.value() {
        scan.pass_over(b':');
        let Some(value) = scan.value() else { break };
        entries.push((serde_json::from_str(key).unwrap_or_default(), value));
        if !scan.pass_over(b',') {
            break;
        }
    }
    entries
}

/// The elements of an array.
pub(super) fn elements(text: &str) -> Vec<&str> {
    let mut scan = Scan { text, at: 0 };
    let mut elements = Vec::new();
    scan.pass_over(b'[');
    while let Some(value) = scan.value() {
        elements.push(value);
        if !scan.pass_over(b',') {
            break;
        }
    }
    elements
}

/// The same value without line ends and other white space outside of texts, as a line of JSON lines needs it.
pub(super) fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let (mut is_text, mut is_escaped) = (false, false);
    for c in text.chars() {
        if is_text || !matches!(c, ' ' | '\t' | '\r' | '\n') {
            line.push(c);
            if !is_text && matches!(c, ',' | ':') {
                line.push(' ');
            }
        }
        if c == '"' && !is_escaped {
            is_text = !is_text;
        }
        is_escaped = is_text && c == '\\' && !is_escaped;
    }
    line
}

/// A position in valid JSON.
struct Scan<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scan<'t> {
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.text.as_bytes().get(self.at).copied()
    }

    fn pass_over(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    /// The next value as written; `None` at the end of an array or object.
    fn value(&mut self) -> Option<&'t str> {
        let from = match self.peek()? {
            b']' | b'}' | b',' | b':' => return None,
            _ => self.at,
        };
        let mut depth = 0_usize;
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b'"') => self.at += text_length(&self.text.as_bytes()[self.at..]),
                Some(b'[' | b'{') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b']' | b'}') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':' | b' ' | b'\t' | b'\r' | b'\n') if depth > 0 => self.at += 1,
                Some(b',' | b':' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n') | None => break,
                Some(_) => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                break;
            }
        }
        self.text.get(from..self.at)
    }
}

/// The length of a text with its quotation marks, in bytes.
fn text_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_keep_how_they_are_written() {
        let text = r#" { "a\"}" : 1.50 , "b":[1, {"c": "]"} ] ,"d": "x\\" , "e":null,"f":-1E+2}"#;
        let written = entries(text);
        let expected = [
            ("a\"}", "1.50"),
            ("b", r#"[1, {"c": "]"} ]"#),
            ("d", r#""x\\""#),
            ("e", "null"),
            ("f", "-1E+2"),
        ];
        assert_eq!(written, expected.map(|(key, value)| (key.to_owned(), value)));
        assert_eq!(elements(" [ 1 ,[2,3], \"a,b\" ]"), ["1", "[2,3]", "\"a,b\""]);
        assert_eq!(elements("[]"), Vec::<&str>::new());
        assert_eq!(entries("{ }"), []);
    }

    #[test]
    fn a_value_of_several_lines_becomes_one() {
        assert_eq!(
            on_one_line("{\n  \"a\" : [1,\r\n2],\t\"b c\": \"d \\\" e\\\\\"}"),
            r#"{"a": [1, 2], "b c": "d \" e\\"}"#
        );
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "[\\[\\]{}:,\" \\\\a1é]{0,30}") {
            let _ = (entries(&text), elements(&text), on_one_line(&text));
        }

        #[test]
        fn the_parts_are_those_that_a_parser_finds(text in "[a\"\\\\\n,\\]}é]{0,8}", number in -1e9..1e9_f64) {
            let value = serde_json::json!({text.clone(): [text.clone(), {"x": [number, text.clone()]}], "z": number});
            for written in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                for (key, part) in entries(&written) {
                    prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(part).unwrap(), &value[&key]);
                    prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&on_one_line(part)).unwrap(), &value[&key]);
                }
            }
        }
    }
}
