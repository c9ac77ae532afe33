//! Text that others wrote, made fit to be shown: a terminal obeys control characters, and a reader is led astray by
//! marks that turn the direction of writing. Used where such text is stored and again where it is printed.

/// What stands where a character was taken out.
pub const REPLACEMENT: char = '\u{fffd}';

/// Whether a character acts instead of being seen: controls (escape sequences, line ends), marks of writing
/// direction, separators of lines and paragraphs.
pub fn is_acting(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line without acting characters: at most `max_chars` of `text`, where a tab or a line end is a space and every
/// other acting character is [`REPLACEMENT`].
pub fn one_line(text: &str, max_chars: usize) -> String {
    let shown = |c| match c {
        '\t' | '\n' | '\r' => ' ',
        c if is_acting(c) => REPLACEMENT,
        c => c,
    };
    text.chars().take(max_chars).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_replaced() {
        let hostile = "\u{1b}[2J\u{9b}1m\u{7}a\r\nb\tc\0\u{202e}gnp\u{2066}\u{2028}";
        let shown = one_line(hostile, 100);
        assert_eq!(shown, "\u{fffd}[2J\u{fffd}1m\u{fffd}a  b c\u{fffd}\u{fffd}gnp\u{fffd}\u{fffd}");
        assert!(!shown.chars().any(is_acting));
    }

    #[test]
    fn all_scripts_stay_and_long_text_is_cut_between_characters() {
        assert_eq!(one_line("São Paulo 東京 👩‍🔬 سلام", 99), "São Paulo 東京 👩‍🔬 سلام");
        assert_eq!(one_line("東京東京", 3), "東京東");
    }
}
