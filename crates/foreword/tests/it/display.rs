//! Numbers, texts and lists as people read them.

use foreword::display::*;

#[test]
fn numbers_are_grouped_by_three() {
    let numbers: [u64; 4] = [0, 999, 1000, 3_909_888];
    assert_eq!(numbers.map(count), ["0", "999", "1,000", "3,909,888"]);
    assert_eq!(seconds(125.2), "2 min 5 s");
    assert_eq!((percent(0.785), interval((0.5, 0.75))), ("78.5 %".to_owned(), "50.0–75.0 %".to_owned()));
}

#[test]
fn numbers_of_any_size_have_three_digits() {
    let numbers = [0.0, 0.085_12, 0.918_4, 1.0, 12.345, 123.4, 999.6, 1.2e6, 0.000_999_9, 0.000_012, -0.5];
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
