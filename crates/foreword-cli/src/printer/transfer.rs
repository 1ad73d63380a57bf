//! Progress of a download: a bar on a terminal, otherwise a line from time to time.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Conversation, Printer};
use foreword::display::bytes;

/// Time between two lines.
const PAUSE: Duration = Duration::from_secs(10);

/// A transfer, reported until it is dropped.
#[derive(Debug)]
pub(super) struct Transfer {
    bar: Option<ProgressBar>,
    all: u64,
    /// Bytes on disk before it began.
    before: u64,
    began: Instant,
    told: Instant,
}

impl Printer {
    /// Begins to report a transfer of `all` bytes, some of which are on disk.
    pub(super) fn begin_transfer(&self, all: u64, here: u64) -> Transfer {
        let bar = (self.conversation == Conversation::Bars).then(|| {
            let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("fetching  {bar:24} {msg}") {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar.set_position(here);
            bar
        });
        let began = Instant::now();
        Transfer { bar, all, before: here, began, told: began }
    }
}

impl Transfer {
    /// Updates the number of bytes on disk; returns a line to print if there is no bar and a line is due.
    pub(super) fn arrived(&mut self, here: u64) -> Option<String> {
        let told = || line(here, self.all, self.before, self.began.elapsed());
        if let Some(bar) = &self.bar {
            bar.set_message(told());
            bar.set_position(here);
        } else if self.told.elapsed() >= PAUSE {
            self.told = Instant::now();
            return Some(format!("fetching  {}", line(here, self.all, self.before, self.began.elapsed())));
        }
        None
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// The bytes on disk of the total, and the remaining time at the rate so far.
fn line(here: u64, all: u64, before: u64, since: Duration) -> String {
    let rate = here.saturating_sub(before) as f64 / since.as_secs_f64().max(1e-3);
    let left = if rate > 0.0 { all.saturating_sub(here) as f64 / rate } else { f64::INFINITY };
    let left = match left {
        0.0..60.0 => format!("{left:.0} s left"),
        60.0..3_600.0 => format!("{:.0} min left", left / 60.0),
        3_600.0..1e6 => format!("{:.1} h left", left / 3_600.0),
        _ => "nothing comes".to_owned(),
    };
    format!("{} of {}, {left}", bytes(here), bytes(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_bytes_and_the_time_that_is_left() {
        let told = |here, before, seconds| line(here, 100_000_000, before, Duration::from_secs(seconds));
        assert_eq!(told(50_000_000, 0, 10), "50.0 MB of 100.0 MB, 10 s left");
        assert_eq!(told(50_000_000, 40_000_000, 60), "50.0 MB of 100.0 MB, 5 min left");
        assert_eq!(told(1_000_000, 0, 100), "1.0 MB of 100.0 MB, 2.8 h left");
        assert_eq!(told(1_000_000, 1_000_000, 100), "1.0 MB of 100.0 MB, nothing comes");
    }
}
