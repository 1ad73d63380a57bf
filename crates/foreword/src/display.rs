//! Numbers, paths and lists as people read them.

use crate::metrics::sample_deviation;
use crate::settings::Method;

/// `3909888` as `3,909,888`.
pub fn count(n: impl TryInto<u64>) -> String {
    let digits = n.try_into().unwrap_or(u64::MAX).to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A share as `78.5 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A number that may be of any size, in three digits that count: `0.0851`, `12.3`, `5.6e-5`.
pub fn number(value: f64) -> String {
    let rounded = format!("{value:.2e}");
    let exponent = rounded.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok());
    match exponent {
        _ if value == 0.0 => "0".to_owned(),
        Some(exponent @ -3..6) => format!("{value:.digits$}", digits = (2 - exponent).max(0) as usize),
        _ => format!("{value:.1e}"),
    }
}

/// Two shares as `72.3–83.7 %`.
pub fn interval((low, high): (f64, f64)) -> String {
    format!("{:.1}–{:.1} %", 100.0 * low, 100.0 * high)
}

/// A number of bytes as `15.4 kB`.
pub fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}

/// A large number in three digits at most: `3.93 M`, `494 M`, `1.24 B`.
pub fn rough(n: u64) -> String {
    let (value, unit) = match n {
        0..1_000 => return n.to_string(),
        1_000..1_000_000 => (n as f64 / 1e3, "k"),
        1_000_000..1_000_000_000 => (n as f64 / 1e6, "M"),
        _ => (n as f64 / 1e9, "B"),
    };
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {unit}")
}

/// What nearest tokens are not; it stands wherever they are shown.
pub const WAYWARD: &str = "Nearest tokens are no explanation: prompts trained with cross-entropy can drift far beyond the \
    norms of the vocabulary, and a prompt within 2 % of the best can sit next to any text.";

/// A token's text with its spaces and line ends to be seen.
pub fn visible(token: &str) -> String {
    let mut visible = String::with_capacity(token.len());
    for c in token.chars() {
        match c {
            ' ' => visible.push('␣'),
            '\n' => visible.push('⏎'),
            '\t' => visible.push('⇥'),
            c if c.is_control() || c.is_whitespace() => visible.extend(c.escape_default()),
            c => visible.push(c),
        }
    }
    visible
}

/// A text in one line that does nothing to a terminal: control characters become spaces or are spelled out.
pub fn in_a_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

/// Shares as their mean and sample standard deviation: `75.4 ± 1.2 %`.
pub fn mean_and_deviation(shares: &[f64]) -> String {
    if shares.is_empty() {
        return String::new();
    }
    let mean = 100.0 * shares.iter().sum::<f64>() / shares.len() as f64;
    match sample_deviation(shares) {
        Some(deviation) => format!("{mean:.1} ± {:.1} %", 100.0 * deviation),
        None => format!("{mean:.1} %"),
    }
}

/// What a method learns, in words.
pub fn learned(method: Method) -> &'static str {
    match method {
        Method::Prompt => "soft prompt",
        Method::Prefix => "KV prefix",
    }
}

/// A loss in nats.
pub fn loss(loss: f64) -> String {
    format!("{loss:.3}")
}

/// The perplexity of a loss in nats.
pub fn perplexity(loss: f64) -> String {
    format!("{:.2}", loss.exp())
}

/// Seconds as `4.2 s`, `2 min 5 s`.
pub fn seconds(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    format!("{} min {} s", whole / 60, whole % 60)
}

/// `a`, `a or b`, `a, b or c`.
pub fn either(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        let numbers: [u64; 4] = [0, 999, 1000, 3_909_888];
        assert_eq!(numbers.map(count), ["0", "999", "1,000", "3,909,888"]);
        assert_eq!(seconds(125.2), "2 min 5 s");
        assert_eq!((percent(0.785), interval((0.5, 0.75))), ("78.5 %".to_owned(), "50.0–75.0 %".to_owned()));
    }

    #[test]
    fn numbers_of_any_size_have_three_digits() {
        let numbers =
            [0.0, 0.085_12, 0.918_4, 1.0, 12.345, 123.4, 999.6, 1.2e6, 0.000_999_9, 0.000_012, -0.5];
        let told =
            ["0", "0.0851", "0.918", "1.00", "12.3", "123", "1000", "1.2e6", "0.00100", "1.2e-5", "-0.500"];
        assert_eq!(numbers.map(number), told);
    }

    #[test]
    fn large_numbers_have_three_digits_and_a_unit() {
        let numbers: [u64; 7] = [0, 999, 3_934_656, 9_996_000, 134_515_008, 494_032_768, 1_235_814_400];
        assert_eq!(numbers.map(rough), ["0", "999", "3.93 M", "10.0 M", "135 M", "494 M", "1.24 B"]);
    }

    #[test]
    fn what_cannot_be_seen_is_shown() {
        assert_eq!(visible(" a\n\t\u{b}\u{a0}é"), r"␣a⏎⇥\u{b}\u{a0}é");
    }

    #[test]
    fn texts_do_nothing_to_a_terminal() {
        assert_eq!(in_a_line("a\tb\n\u{1b}[31mc\u{7}"), "a b \\u{1b}[31mc\\u{7}");
    }

    #[test]
    fn names_are_listed() {
        let names = ["a", "b", "c"].map(str::to_owned);
        assert_eq!((either(&names), either(&names[..2])), ("a, b or c".to_owned(), "a or b".to_owned()));
    }
}
