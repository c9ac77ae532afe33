//! Results for people and for programs. Devices and other people wrote parts of what is printed: no character
//! that a terminal obeys gets through, neither into tables nor into JSON.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use comfy_table::{ContentArrangement, Table, presets};
use protocol::text::{REPLACEMENT, is_acting, one_line};
use serde_json::Value;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Tables and sentences.
    Human,
    /// One JSON value.
    Json,
}

impl Format {
    /// Prints `value` as JSON, or what `human` makes of it.
    ///
    /// # Errors
    /// When stdout can't be written, e.g. a closed pipe.
    pub(crate) fn print(self, value: &Value, human: impl FnOnce(&Value) -> String) -> Result<()> {
        let text = match self {
            Self::Json => escaped(&serde_json::to_string_pretty(value)?),
            Self::Human => shown(&human(value)),
        };
        print(text.trim_end().as_bytes())
    }
}

/// Writes a text and a line's end to stdout.
///
/// # Errors
/// When stdout can't be written, e.g. a closed pipe.
pub(crate) fn print(text: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text).and_then(|()| stdout.write_all(b"\n")).context("cannot write the result")
}

/// Lines of text fit for a terminal: what it would obey is replaced, but for line ends and tabs.
pub(crate) fn shown(text: &str) -> String {
    text.chars().map(|c| if !matches!(c, '\n' | '\t') && is_acting(c) { REPLACEMENT } else { c }).collect()
}

/// JSON with the escapes that its writer leaves out; it says the same.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_acting(c) {
            // Every acting character takes four digits.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// One cell or value: it can't pretend to be a line of its own.
fn cell(text: &str) -> String {
    one_line(text, usize::MAX)
}

/// Asks on the terminal whether to go on with what can't be undone; `warning` says what that is.
///
/// # Errors
/// When nobody can be asked: a script has to say `--yes`.
pub(crate) fn confirmed(warning: &str) -> Result<bool> {
    ensure!(io::stdin().is_terminal(), "{warning} Say --yes to do it without being asked.");
    eprint!("{warning} Go on? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Whether an error only says that nobody reads our output any more.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// A table of `rows` under `headings`; says `empty` when there are none.
pub(crate) fn table(headings: &[&str], rows: Vec<Vec<String>>, empty: &str) -> String {
    if rows.is_empty() {
        return empty.to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if !io::stdout().is_terminal() {
        // A pipe has no width: nothing is wrapped, so that grep and awk see whole cells.
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(headings.iter().copied());
    table.add_rows(rows.into_iter().map(|row| row.iter().map(|text| cell(text)).collect::<Vec<_>>()));
    table.trim_fmt()
}

/// Two columns: what and its value; pairs without a value are left out.
pub(crate) fn facts(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = pairs.iter().filter(|(_, value)| !value.is_empty());
    lines.map(|(name, value)| format!("{name:width$}  {}", cell(value))).collect::<Vec<_>>().join("\n") + "\n"
}

/// The text at a JSON pointer: strings bare, `-` for nothing.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => cell(text),
        Some(other) => other.to_string(),
    }
}

/// The items of a list answer.
pub(crate) fn items(value: &Value) -> &[Value] {
    let list = value.get("items").unwrap_or(value);
    list.as_array().map_or(&[], Vec::as_slice)
}

/// Bytes for people, in binary units.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_binary_units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
    }

    /// Clears the screen, names the window, writes over the line, turns the writing, starts a forged line.
    const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;pwned\u{7}\rall is well\u{202e}gnp.exe\u{9b}32m\nforged";

    #[test]
    fn no_text_of_others_moves_the_terminal() {
        let value = serde_json::json!({ "detail": HOSTILE });
        let rows = vec![vec![HOSTILE.to_owned()]];
        let tidy = |text: &str| {
            assert!(!text.chars().any(|c| c != '\n' && is_acting(c)), "{text:?}");
            assert!(!text.lines().any(|line| line.starts_with("forged")), "{text:?}");
        };
        for text in [text(&value, "/detail"), table(&["what"], rows, ""), facts(&[("what", HOSTILE.into())])]
        {
            tidy(&text);
            assert!(text.contains("gnp.exe"));
        }
        assert_eq!(shown("a\nb\u{1b}[2J\tc"), "a\nb\u{fffd}[2J\tc");
        let json = escaped(&serde_json::to_string_pretty(&value).unwrap());
        tidy(&json);
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
    }

    #[test]
    fn nothing_is_a_dash() {
        let value = serde_json::json!({"a": {"b": null}, "c": 3});
        assert_eq!(text(&value, "/a/b"), "-");
        assert_eq!(text(&value, "/c"), "3");
        assert_eq!(text(&value, "/x/y"), "-");
    }
}
