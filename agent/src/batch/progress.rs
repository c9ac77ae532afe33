//! A progress bar on stderr, for people only: nothing is drawn when stderr is no terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Least time between two drawings.
const EVERY: Duration = Duration::from_millis(100);
const WIDTH: u64 = 30;

/// The bar.
pub(super) struct Progress {
    is_shown: bool,
    begun: Instant,
    drawn: Option<Instant>,
}

impl Progress {
    /// Draws nothing yet.
    pub(super) fn new(is_quiet: bool) -> Self {
        Self { is_shown: !is_quiet && std::io::stderr().is_terminal(), begun: Instant::now(), drawn: None }
    }

    /// After each item: how far of what, and how many items that were.
    pub(super) fn at(&mut self, done: u64, of: u64, items: u64) {
        if self.is_shown && self.drawn.is_none_or(|drawn| drawn.elapsed() >= EVERY) {
            self.drawn = Some(Instant::now());
            self.draw(done, of, items);
        }
    }

    /// At the end: leaves the full bar.
    pub(super) fn finish(&self, items: u64) {
        if self.is_shown {
            self.draw(1, 1, items);
            eprintln!();
        }
    }

    fn draw(&self, done: u64, of: u64, items: u64) {
        let bar = bar(done, of);
        let per_s = items as f64 / self.begun.elapsed().as_secs_f64().max(1e-3);
        eprint!("\r{bar}  {items} items, {per_s:.0} per s ");
        let _closed = std::io::stderr().flush();
    }
}

fn bar(done: u64, of: u64) -> String {
    let of = of.max(1);
    let done = done.min(of);
    let filled = (0..WIDTH).map(|place| if place * of < done * WIDTH { '=' } else { ' ' });
    format!("[{}] {:>3} %", filled.collect::<String>(), done * 100 / of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_from_empty_to_full() {
        assert_eq!(bar(0, 10), format!("[{}]   0 %", " ".repeat(30)));
        assert_eq!(bar(5, 10), format!("[{}{}]  50 %", "=".repeat(15), " ".repeat(15)));
        assert_eq!(bar(11, 10), format!("[{}] 100 %", "=".repeat(30)));
        assert_eq!(bar(0, 0), format!("[{}]   0 %", " ".repeat(30)));
    }
}
