//! Public keys as PEM text: `SubjectPublicKeyInfo` between its two lines.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";
/// Longest text that is looked at; a key of RSA with 16384 bits needs a third of it.
const MAX_BYTES: usize = 10_000;

/// The bytes between the lines; `None` when it is no such text. White space, however it breaks the lines, is skipped.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let (body, after) = text.trim().strip_prefix(BEGIN)?.split_once(END)?;
    if !after.trim().is_empty() {
        return None;
    }
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok()
}

/// The text with lines of 64 characters, as other tools write it.
#[cfg(feature = "sign")]
pub(super) fn encode(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("{BEGIN}\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str(END);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_however_its_lines_are_broken() {
        let der: Vec<u8> = (0..=200).collect();
        let text = encode(&der);
        assert_eq!(decode(&text).unwrap(), der);
        assert_eq!(decode(&text.replace('\n', "\r\n")).unwrap(), der);
        assert_eq!(decode(text.trim_end()).unwrap(), der);
        for bad in ["", "AAAA", &text[1..], &text.replace("END", "ENDE"), &format!("{text}x")] {
            assert!(decode(bad).is_none(), "{bad}");
        }
    }
}
