//! Panes as the database holds them: one zstd frame each. Rows of earlier versions hold the plain bytes; a pane is a CBOR
//! map and never begins like a frame, so the bytes themselves say which they are.

use std::io::Read;

use profile::MAX_PANE_BYTES;

/// A frame's first bytes (RFC 8878, 3.1.1).
const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// Panes are written once and kept for weeks; beyond this level they hardly shrink.
const LEVEL: i32 = 9;
/// No frame of ours needs a longer window than the largest pane.
const WINDOW_LOG: u32 = 23;

/// The bytes to store. Should compressing ever fail, they are stored as they are.
pub(super) fn pack(body: &[u8]) -> Vec<u8> {
    zstd::encode_all(body, LEVEL).unwrap_or_else(|_| body.to_vec())
}

/// What was packed. Bytes that are no frame, or one of more than a pane, come back as they are: reading them as a pane
/// is what names the fault.
pub(super) fn unpack(stored: Vec<u8>) -> Vec<u8> {
    if !stored.starts_with(&MAGIC) {
        return stored;
    }
    decompress(&stored).unwrap_or(stored)
}

fn decompress(frame: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = zstd::Decoder::with_buffer(frame).ok()?;
    decoder.window_log_max(WINDOW_LOG).ok()?;
    let mut body = Vec::new();
    let bound = u64::try_from(MAX_PANE_BYTES).ok()?.saturating_add(1);
    decoder.take(bound).read_to_end(&mut body).ok()?;
    (body.len() <= MAX_PANE_BYTES).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_and_plain_bytes_stay() {
        for body in [vec![], vec![0xA3, 1, 2], vec![7; 5000]] {
            assert_eq!(unpack(pack(&body)), body);
        }
        assert!(pack(&[7; 5000]).len() < 100);
        assert_eq!(unpack(vec![0xA3, 1, 2]), [0xA3, 1, 2], "a row of an earlier version");
    }

    #[test]
    fn a_bomb_or_a_torn_frame_is_not_unpacked() {
        let bomb = pack(&vec![0; MAX_PANE_BYTES + 1]);
        assert_eq!(unpack(bomb.clone()), bomb);
        let torn = pack(&[1, 2, 3, 4, 5])[..7].to_vec();
        assert_eq!(unpack(torn.clone()), torn);
    }
}
