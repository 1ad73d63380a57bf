//! Bytes to text: UTF-8, or the encoding that is named, marked or evident.

use super::super::DataError;
use super::n_newlines;
use super::source::Source;
use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, ISO_2022_JP, UTF_16BE, UTF_16LE};
use std::borrow::Cow;

/// Number of characters shown around the first one that needs the encoding.
const AROUND: usize = 20;
/// Of the high bytes of UTF-16, at least one in this many is zero in files with a header, digits or line ends; in a file of
/// Latin letters, at least half are.
const FEWEST_ZEROS: usize = 8;
/// With fewer zeros, one in eight may be chance.
const ENOUGH_ZEROS: usize = 16;

/// What bytes look like that are no text in any encoding.
pub(super) const NO_TEXT: &str = ", nor text in another encoding";

/// A text, and its lines that were not in its encoding.
pub(super) struct Text<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) bad_lines: Vec<u64>,
}

impl<'a> From<Cow<'a, str>> for Text<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self { text, bad_lines: Vec::new() }
    }
}

/// The text of a file, without a byte order mark.
pub(super) fn decode<'a>(bytes: &'a [u8], source: &mut Source<'_>) -> Result<Text<'a>, DataError> {
    if let Some((text, name)) = utf32(bytes) {
        source.say(format!("{}: read as {name}", source.name()));
        return Ok(Cow::<str>::Owned(text).into());
    }
    if bytes.starts_with(b"\xff\xfe\0\0") || bytes.starts_with(b"\0\0\xfe\xff") {
        return Err(DataError::NotUtf8 { location: source.location(1), looks_like: ", but damaged UTF-32" });
    }
    if let Some(encoding) = source.options.encoding {
        return named(bytes, encoding.0, source);
    }
    if let Some((encoding, mark)) =
        Encoding::for_bom(bytes).filter(|(encoding, _)| *encoding != encoding_rs::UTF_8)
    {
        source.say(format!("{}: read as {}, as its byte order mark says", source.name(), encoding.name()));
        return whole(&bytes[mark..], encoding, source);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let Some(zero) = bytes.iter().position(|&byte| byte == 0) else {
        return match std::str::from_utf8(bytes) {
            Ok(_) if is_iso_2022_jp(bytes) => {
                source.say(format!("{}: read as {}", source.name(), ISO_2022_JP.name()));
                whole(bytes, ISO_2022_JP, source)
            }
            Ok(text) => Ok(Cow::Borrowed(text).into()),
            Err(error) => other(bytes, error.valid_up_to(), source),
        };
    };
    if let Some(encoding) = utf16(bytes) {
        source.say(format!("{}: read as {}, without a byte order mark", source.name(), encoding.name()));
        return whole(bytes, encoding, source);
    }
    Err(DataError::Zero { location: source.location(1 + n_newlines(&bytes[..zero])) })
}

/// UTF-32, which no Encoding Standard has: with a byte order mark, or a text without a zero character in it.
fn utf32(bytes: &[u8]) -> Option<(String, &'static str)> {
    /// The characters from here on are for private use: two units of UTF-16 could look like one.
    const MOST: u32 = 0x4_0000;
    let (units, rest) = bytes.as_chunks::<4>();
    let read = |of: fn([u8; 4]) -> u32| -> Option<String> {
        let characters =
            units.iter().map(|unit| Some(of(*unit)).filter(|c| *c < MOST).and_then(char::from_u32));
        let text: String = characters.collect::<Option<_>>()?;
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        (!text.is_empty() && !text.contains('\0')).then_some(text)
    };
    if !rest.is_empty() {
        return None;
    }
    let little = read(u32::from_le_bytes).map(|text| (text, "UTF-32LE"));
    little.or_else(|| read(u32::from_be_bytes).map(|text| (text, "UTF-32BE")))
}

/// Whether a text of ASCII has the escape sequences of Japanese mail, and is valid with them.
fn is_iso_2022_jp(bytes: &[u8]) -> bool {
    const ESCAPES: [&[u8]; 3] = [b"\x1b$B", b"\x1b$@", b"\x1b(J"];
    let has_escape =
        bytes.is_ascii() && bytes.contains(&0x1b) && bytes.windows(3).any(|window| ESCAPES.contains(&window));
    has_escape && ISO_2022_JP.decode_without_bom_handling_and_without_replacement(bytes).is_some()
}

/// A text in an encoding that the user named. A byte order mark of another one wins, as it does everywhere.
fn named<'a>(
    bytes: &'a [u8],
    encoding: &'static Encoding,
    source: &mut Source<'_>,
) -> Result<Text<'a>, DataError> {
    let (encoding, mark) = Encoding::for_bom(bytes).unwrap_or((encoding, 0));
    let text = whole(&bytes[mark..], encoding, source)?;
    match text.text.find('\0') {
        Some(zero) => {
            Err(DataError::Zero { location: source.location(1 + n_newlines(&text.text.as_bytes()[..zero])) })
        }
        None => Ok(text),
    }
}

/// A text that must be in this encoding from beginning to end; if the user wants that, lines that are not are left out.
fn whole<'a>(
    bytes: &'a [u8],
    encoding: &'static Encoding,
    source: &mut Source<'_>,
) -> Result<Text<'a>, DataError> {
    if let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(bytes) {
        return Ok(text.into());
    }
    let bad_lines = bad_lines(bytes, encoding);
    let location = source.location(bad_lines.first().copied().unwrap_or(1));
    if !source.options.skip_bad {
        return Err(DataError::NotInEncoding { location, encoding: encoding.name() });
    }
    Ok(Text { text: encoding.decode_without_bom_handling(bytes).0, bad_lines })
}

/// The lines that have bytes that are not in the encoding.
fn bad_lines(bytes: &[u8], encoding: &'static Encoding) -> Vec<u64> {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let (mut lines, mut line, mut at) = (Vec::new(), 1, 0);
    let mut chunk = vec![0; 1 << 16];
    loop {
        let (result, read, written) =
            decoder.decode_to_utf8_without_replacement(&bytes[at..], &mut chunk, true);
        line += n_newlines(&chunk[..written]);
        at += read;
        match result {
            encoding_rs::DecoderResult::InputEmpty => return lines,
            encoding_rs::DecoderResult::OutputFull => {}
            encoding_rs::DecoderResult::Malformed(..) => {
                if lines.last() != Some(&line) {
                    lines.push(line);
                }
            }
        }
    }
}

/// UTF-16 without a byte order mark: zeros, as in the high bytes of ASCII, in one of two places alone.
fn utf16(bytes: &[u8]) -> Option<&'static Encoding> {
    let zeros = |parity: usize| bytes.iter().skip(parity).step_by(2).filter(|&&byte| byte == 0).count();
    let n_units = bytes.len() / 2;
    let are_enough = |n: usize| 2 * n >= n_units || n >= ENOUGH_ZEROS && n * FEWEST_ZEROS >= n_units;
    let encoding = match (zeros(0), zeros(1)) {
        (0, n) if are_enough(n) => UTF_16LE,
        (n, 0) if are_enough(n) => UTF_16BE,
        _ => return None,
    };
    let text = encoding.decode_without_bom_handling_and_without_replacement(bytes)?;
    (bytes.len().is_multiple_of(2) && !text.contains('\0')).then_some(encoding)
}

/// A text that is not UTF-8: in the encoding that is likely, unless it is damaged UTF-8 or no text.
fn other<'a>(bytes: &'a [u8], wrong: usize, source: &mut Source<'_>) -> Result<Text<'a>, DataError> {
    let not_utf8 = |source: &Source<'_>, looks_like| {
        let location = source.location(1 + n_newlines(&bytes[..wrong]));
        Err(DataError::NotUtf8 { location, looks_like })
    };
    if bytes.iter().any(|&byte| is_control(byte)) {
        return not_utf8(source, NO_TEXT);
    }
    let (n_valid, n_wrong) = non_ascii(bytes);
    if n_valid > n_wrong {
        if source.options.skip_bad {
            return whole(bytes, encoding_rs::UTF_8, source);
        }
        return not_utf8(source, ", but most of the file is");
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(bytes, true);
    let encoding = detector.guess(None, Utf8Detection::Deny);
    let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(bytes) else {
        return not_utf8(source, "");
    };
    let shown = around_first(&text);
    source.say(format!(
        "{}: not UTF-8, read as {} ({shown:?}; another one: --encoding NAME)",
        source.name(),
        encoding.name()
    ));
    Ok(text.into())
}

/// Control characters that no text has.
fn is_control(byte: u8) -> bool {
    byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0x1a | 0x1b)
}

/// The numbers of characters beyond ASCII and of wrong bytes, read as UTF-8.
fn non_ascii(bytes: &[u8]) -> (usize, usize) {
    bytes.utf8_chunks().fold((0, 0), |(n_valid, n_wrong), chunk| {
        let valid = chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        (n_valid + valid, n_wrong + usize::from(!chunk.invalid().is_empty()))
    })
}

/// The first character beyond ASCII, with what stands around it on its line.
fn around_first(text: &str) -> String {
    let Some(at) = text.find(|c: char| !c.is_ascii()) else { return String::new() };
    let line_start = text[..at].rfind(['\n', '\r']).map_or(0, |end| end + 1);
    let before: Vec<char> = text[line_start..at].chars().collect();
    let before: String = before[before.len().saturating_sub(AROUND)..].iter().collect();
    let after: String = text[at..].chars().take_while(|c| !matches!(c, '\n' | '\r')).take(AROUND).collect();
    format!("{before}{after}")
}
