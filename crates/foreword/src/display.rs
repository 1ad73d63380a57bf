//! Formats numbers, paths and lists for people.

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

/// A number of any size with three significant digits: `0.0851`, `12.3`, `5.6e-5`.
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

/// A large number with at most three digits: `3.93 M`, `494 M`, `1.24 B`.
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

/// The caveat printed with every list of nearest tokens.
pub const WAYWARD: &str = "Nearest tokens are no explanation: prompts trained with cross-entropy can drift far beyond the \
    norms of the vocabulary, and a prompt within 2 % of the best can sit next to any text.";

/// A token's text with visible spaces and line ends.
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

/// A text on one line that is safe for a terminal: control characters become spaces or are escaped.
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

/// The beginning of a text, on one line.
#[must_use]
pub fn shortened(text: &str) -> String {
    /// Maximum number of characters.
    const SHOWN: usize = 90;
    let line = in_a_line(text);
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
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

/// Describes what a method learns.
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

/// A long time in round numbers: `4 min`, `1 h 40 min`.
pub fn rough_time(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// Maximum number of names in a list.
pub const MOST_LISTED: usize = 20;
/// Number of names shown of a longer list.
pub const FEW_LISTED: usize = 5;

/// `a`, `a or b`, `a, b or c`.
pub fn either(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        many if many.len() > MOST_LISTED => {
            let shown = &many[..FEW_LISTED];
            format!("{} or one of {} others", shown.join(", "), count((many.len() - shown.len()) as u64))
        }
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// A difference of shares in points, with its sign but where it is nothing.
pub fn points(difference: f64) -> String {
    let points = format!("{:+.1}", 100.0 * difference);
    if points == "-0.0" { "+0.0".to_owned() } else { points }
}

/// A p value.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let names = |n: usize| (0..n).map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(either(&names(3)), "0, 1 or 2");
        assert!(either(&names(20)).ends_with(", 18 or 19"));
        assert_eq!(either(&names(300)), "0, 1, 2, 3, 4 or one of 295 others");
    }

    #[test]
    fn long_texts_are_cut_to_a_line() {
        assert_eq!(shortened("a\nb"), "a b");
        assert_eq!(shortened(&"é".repeat(91)), format!("{}…", "é".repeat(90)));
    }
}
