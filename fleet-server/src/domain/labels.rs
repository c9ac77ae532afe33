//! What a label may be, whoever wrote it: people in the console, or a device in its hello.

use protocol::text::is_acting;

/// Most labels of a device.
pub const MAX_LABELS: usize = 64;
/// Longest value in bytes.
const MAX_VALUE_BYTES: usize = 255;

/// Whether this can be a label's key: 1 to 63 of `a-z`, `A-Z`, `0-9`, `- _ . /`.
pub fn is_key(key: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    (1..=63).contains(&key.len()) && key.chars().all(is_inner)
}

/// Whether this can be a label's value: at most 255 bytes without commas and without characters that a terminal obeys.
pub fn is_value(value: &str) -> bool {
    value.len() <= MAX_VALUE_BYTES && !value.contains(|c| c == ',' || is_acting(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_plain_and_values_are_short_and_quiet() {
        assert!(is_key("site/line-3.a_b") && is_value("São Paulo: 3") && is_value(""));
        for key in ["", "a b", "käse", "k\u{1b}[2J", &"k".repeat(64)] {
            assert!(!is_key(key), "{key:?}");
        }
        for value in ["a,b", "a\nb", "a\rb", "\u{1b}[2J", "\u{202e}", &"v".repeat(256)] {
            assert!(!is_value(value), "{value:?}");
        }
    }
}
