//! Captured samples: one item that a model was asked, with what it said and why it was kept, on its way to retraining.
//!
//! A sample travels over HTTP, not over MQTT, under the SHA-256 of its bytes: eight bytes of mark, the length of the
//! head, the head as JSON, then each input's values as the Open Inference Protocol writes them in binary. Nothing
//! here is believed before [`SampleHead::split`] has held every length against what is there.

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, Versioned, decode_json, encode_json};
use crate::ids::{Digest, ModelName, Version};
use crate::time::UnixMillis;

/// Largest sample in bytes. Stops a device from filling a server's memory with one of them.
pub const MAX_SAMPLE_BYTES: u64 = 16 * 1024 * 1024;
/// A sample comes in parts of this size, the last one shorter; what the server has of it is a whole number of parts.
pub const PART_BYTES: u64 = 256 * 1024;
/// Most inputs of one sample.
pub const MAX_INPUTS: usize = 64;
/// Longest text in a head, in bytes: names, labels, ids.
pub const MAX_TEXT_BYTES: usize = 256;
/// Most dimensions of one input.
const MAX_DIMS: usize = 16;

const MARK: &[u8; 8] = b"FLSAMPL1";
const LENGTH_BYTES: usize = 4;

/// Why an item was kept. The order is the order of worth: when room is short, the lowest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// By chance alone, whatever the model said.
    Random,
    /// The model was not sure.
    Uncertainty,
    /// A feature lies outside of what the training data had.
    OutOfReference,
    /// A candidate that ran beside said something else.
    Disagreement,
    /// The true label came, and it was another one.
    Contradiction,
}

impl Strategy {
    /// All of them, from the lowest worth to the highest.
    pub const ALL: [Self; 5] =
        [Self::Random, Self::Uncertainty, Self::OutOfReference, Self::Disagreement, Self::Contradiction];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Uncertainty => "uncertainty",
            Self::OutOfReference => "out_of_reference",
            Self::Disagreement => "disagreement",
            Self::Contradiction => "contradiction",
        }
    }
}

impl std::fmt::Display for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|strategy| strategy.as_str() == text);
        found.ok_or_else(|| {
            format!("{text:?} is no strategy; there are {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// What a model said of one item.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Said {
    /// The class's name; of a classifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The class's probability; of a classifier, if it is a finite number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// The number; of a regression, if it is finite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
}

/// One input of a sample; its bytes stand behind the head, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleInput {
    /// Its name in the release.
    pub name: String,
    /// Its element type, by the name in the Open Inference Protocol.
    pub datatype: String,
    /// Its sizes, outermost first; a batch has one item.
    pub shape: Vec<u64>,
    /// Bytes of its values.
    pub size_bytes: u64,
}

/// All of a sample but the values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleHead {
    /// The inference's id, as the application knows it; `#n` names the item of a batch.
    pub id: String,
    /// Which model.
    pub model: ModelName,
    /// Version of the release that answered.
    pub version: Version,
    /// Digest of that release.
    pub release: Digest,
    /// The device's clock when it answered.
    pub at: UnixMillis,
    /// Why it was kept.
    pub strategy: Strategy,
    /// With which probability an item that `strategy` applies to is kept; above 0, at most 1.
    pub probability: f64,
    /// What the release said.
    pub answer: Said,
    /// What the candidate beside said, for a disagreement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Said>,
    /// The feature that lies outside, for an item out of the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature: Option<String>,
    /// The true label, for a contradiction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What was asked.
    pub inputs: Vec<SampleInput>,
}

impl Versioned for SampleHead {
    const WHAT: &'static str = "sample";
}

impl SampleHead {
    /// The bytes of a sample. `values` are those that the head's inputs tell of.
    pub fn join(&self, values: &[Vec<u8>]) -> Vec<u8> {
        let head = encode_json(self);
        let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
        let mut bytes = [&MARK[..], &length.to_le_bytes(), &head].concat();
        for value in values {
            bytes.extend_from_slice(value);
        }
        bytes
    }

    /// Takes a sample's bytes apart: the head, and the values of each input.
    ///
    /// # Errors
    /// [`DecodeError`] names what is wrong; every bound of the form is checked.
    pub fn split(bytes: &[u8]) -> Result<(Self, Vec<&[u8]>), DecodeError> {
        let what = Self::WHAT;
        let max = usize::try_from(MAX_SAMPLE_BYTES).unwrap_or(usize::MAX);
        if bytes.len() > max {
            return Err(DecodeError::TooLarge { what, max, got: bytes.len() });
        }
        let rest = bytes.strip_prefix(MARK).ok_or_else(|| bound("it does not begin as one"))?;
        let (length, rest) =
            rest.split_first_chunk::<LENGTH_BYTES>().ok_or_else(|| bound("it is cut off"))?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (head, values) = rest.split_at_checked(length).ok_or_else(|| bound("its head is cut off"))?;
        let head: Self = decode_json(head)?;
        head.check().map_err(bound)?;
        let values =
            head.values(values).ok_or_else(|| bound("its values are not as long as its head says"))?;
        Ok((head, values))
    }

    fn values<'a>(&self, mut rest: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        let mut values = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let (value, left) = rest.split_at_checked(usize::try_from(input.size_bytes).ok()?)?;
            values.push(value);
            rest = left;
        }
        rest.is_empty().then_some(values)
    }

    fn check(&self) -> Result<(), String> {
        if !(self.probability > 0.0 && self.probability <= 1.0) {
            return Err(format!("its probability is {}, not above 0 and at most 1", self.probability));
        }
        if self.inputs.is_empty() || self.inputs.len() > MAX_INPUTS {
            return Err(format!("it has {} inputs, not 1 to {MAX_INPUTS}", self.inputs.len()));
        }
        let said = [Some(&self.answer), self.beside.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(|said| said.label.as_ref());
        let texts =
            [Some(&self.id), self.feature.as_ref(), self.label.as_ref()].into_iter().flatten().chain(said);
        let names = self.inputs.iter().flat_map(|input| [&input.name, &input.datatype]);
        if texts.chain(names).any(|text| text.len() > MAX_TEXT_BYTES) {
            return Err(format!("one of its texts has more than {MAX_TEXT_BYTES} bytes"));
        }
        self.inputs.iter().try_for_each(SampleInput::check)
    }
}

impl SampleInput {
    fn check(&self) -> Result<(), String> {
        let count = self.shape.iter().try_fold(1_u64, |all, dim| all.checked_mul(*dim));
        if self.shape.len() > MAX_DIMS || count.is_none() {
            return Err(format!("input {:?} has a shape that can't be", self.name));
        }
        let width = match self.datatype.as_str() {
            "BOOL" | "INT8" | "UINT8" => 1,
            "INT16" | "UINT16" | "FP16" => 2,
            "INT32" | "UINT32" | "FP32" => 4,
            "INT64" | "UINT64" | "FP64" => 8,
            // Each text has its length before it; who reads them holds them against the shape.
            "BYTES" => return Ok(()),
            other => return Err(format!("input {:?} has the unknown type {other:?}", self.name)),
        };
        match count.and_then(|count| count.checked_mul(width)) {
            Some(size) if size == self.size_bytes => Ok(()),
            _ => Err(format!(
                "input {:?} has {} bytes, which do not fill its shape",
                self.name, self.size_bytes
            )),
        }
    }
}

fn bound(why: impl Into<String>) -> DecodeError {
    DecodeError::Bound { what: SampleHead::WHAT, why: why.into() }
}

/// What the server has of a sample that is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadState {
    /// The next part begins here.
    pub got_bytes: u64,
    /// All of it is stored and was checked: the device may forget it.
    pub is_stored: bool,
}

/// A text that fits into a head: cut at a character's border.
pub fn fitting(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> SampleHead {
        SampleHead {
            id: "1-2".into(),
            model: "digits".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            release: Digest::from_bytes([7; 32]),
            at: UnixMillis(5),
            strategy: Strategy::Uncertainty,
            probability: 0.25,
            answer: Said { label: Some("3".into()), confidence: Some(0.4), value: None },
            beside: None,
            feature: None,
            label: None,
            inputs: vec![
                SampleInput { name: "a".into(), datatype: "FP32".into(), shape: vec![1, 2], size_bytes: 8 },
                SampleInput { name: "b".into(), datatype: "BYTES".into(), shape: vec![1], size_bytes: 5 },
            ],
        }
    }

    fn whole() -> Vec<u8> {
        head().join(&[vec![1; 8], vec![2; 5]])
    }

    #[test]
    fn what_was_joined_comes_apart_again() {
        let bytes = whole();
        let (read, values) = SampleHead::split(&bytes).unwrap();
        assert_eq!(read, head());
        assert_eq!(values, [&[1_u8; 8][..], &[2; 5]]);
    }

    #[test]
    fn a_sample_cut_anywhere_or_longer_is_refused() {
        let bytes = whole();
        for end in 0..bytes.len() {
            assert!(SampleHead::split(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(SampleHead::split(&[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn every_bound_of_the_head_is_held() {
        type Break = fn(&mut SampleHead);
        let broken: [(&str, Break); 8] = [
            ("probability", |h| h.probability = 0.0),
            ("probability", |h| h.probability = 1.1),
            ("inputs", |h| h.inputs.clear()),
            ("texts", |h| h.id = "x".repeat(MAX_TEXT_BYTES + 1)),
            ("shape that can't be", |h| h.inputs[0].shape = vec![u64::MAX, 2]),
            ("do not fill", |h| h.inputs[0].shape = vec![1, 3]),
            ("unknown type", |h| h.inputs[0].datatype = "FP33".into()),
            ("as long as", |h| h.inputs[1].size_bytes = u64::MAX),
        ];
        for (name, change) in broken {
            let mut head = head();
            change(&mut head);
            let error = SampleHead::split(&head.join(&[vec![1; 8], vec![2; 5]])).unwrap_err().to_string();
            assert!(error.contains(name), "{name}: {error}");
        }
    }

    #[test]
    fn names_lead_back_and_worth_has_an_order() {
        for strategy in Strategy::ALL {
            assert_eq!(strategy.as_str().parse(), Ok(strategy));
            assert_eq!(serde_json::to_value(strategy).unwrap(), strategy.as_str());
        }
        assert!(Strategy::ALL.is_sorted());
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(fitting("short"), "short");
        let cut = fitting(&"ü".repeat(300));
        assert!(cut.len() <= MAX_TEXT_BYTES && cut.chars().all(|c| c == 'ü'));
    }
}
