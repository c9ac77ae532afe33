//! From a request to a sample: which inference it was, and one item's values.

use inference::Tensor;
use inference::features::Answer;
use protocol::sample::{Said, SampleHead, SampleInput, Strategy, fitting};
use protocol::{Digest, ModelName, UnixMillis, Version};
use release::Manifest;

use crate::slots::Loaded;

/// What a draft takes beside its values.
const HEAD_BYTES: usize = 512;

/// Which inference an item belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::monitor) struct Origin {
    pub(in crate::monitor) id: String,
    pub(in crate::monitor) at: UnixMillis,
    pub(in crate::monitor) model: ModelName,
    version: Version,
    release: Digest,
    /// Inputs whose first dimension is the batch.
    batched: Vec<String>,
    rows: usize,
}

impl Origin {
    pub(in crate::monitor) fn new(loaded: &Loaded, id: &str, at: UnixMillis, rows: usize) -> Self {
        let specs = loaded.manifest.inputs.iter();
        let is_batched = |shape: &[i64]| shape.first().is_some_and(|dim| *dim < 0);
        let batched = specs.filter(|spec| is_batched(&spec.shape)).map(|spec| spec.name.clone()).collect();
        Self {
            id: id.to_owned(),
            at,
            model: loaded.model.clone(),
            version: loaded.release.version.clone(),
            release: loaded.release.digest,
            batched,
            rows,
        }
    }

    /// Items of the request.
    pub(in crate::monitor) fn rows(&self) -> usize {
        self.rows
    }

    fn item_id(&self, row: usize) -> String {
        if self.rows == 1 {
            return fitting(&self.id);
        }
        let (number, mut id) = (format!("#{row}"), fitting(&self.id));
        // The number must fit too.
        while id.len() + number.len() > protocol::sample::MAX_TEXT_BYTES {
            id.pop();
        }
        id + &number
    }

    /// The item's own part of the inputs; none when a batch is shorter than the others say.
    fn item(&self, inputs: &[Tensor], row: usize) -> Option<Vec<Tensor>> {
        let is_batched = |input: &Tensor| self.batched.iter().any(|name| name == input.name());
        let one = |input: &Tensor| if is_batched(input) { input.item(row) } else { Some(input.clone()) };
        inputs.iter().map(one).collect()
    }
}

/// Why one item is kept, and what goes with it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::monitor) struct Reason {
    pub(super) strategy: Strategy,
    pub(super) probability: f64,
    pub(super) beside: Option<Said>,
    pub(super) feature: Option<String>,
    pub(super) label: Option<String>,
}

impl Reason {
    pub(super) fn new(strategy: Strategy, probability: f64) -> Self {
        Self { strategy, probability, beside: None, feature: None, label: None }
    }
}

/// A sample before it is on disk.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) head: SampleHead,
    values: Vec<Vec<u8>>,
}

impl Draft {
    /// Copies the item's values. None when the request has no such item.
    pub(super) fn new(
        origin: &Origin,
        inputs: &[Tensor],
        row: usize,
        answer: Said,
        reason: Reason,
    ) -> Option<Self> {
        let item = origin.item(inputs, row)?;
        let values: Vec<Vec<u8>> = item.iter().map(bytes_of).collect();
        let length = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let inputs = item.iter().zip(&values).map(|(tensor, bytes)| SampleInput {
            name: tensor.name().to_owned(),
            datatype: tensor.datatype().name().to_owned(),
            shape: tensor.shape().iter().copied().map(length).collect(),
            size_bytes: length(bytes.len()),
        });
        let head = SampleHead {
            id: origin.item_id(row),
            model: origin.model.clone(),
            version: origin.version.clone(),
            release: origin.release,
            at: origin.at,
            strategy: reason.strategy,
            probability: reason.probability,
            answer,
            beside: reason.beside,
            feature: reason.feature,
            label: reason.label,
            inputs: inputs.collect(),
        };
        Some(Self { head, values })
    }

    /// About what it takes in memory.
    pub(super) fn size_bytes(&self) -> usize {
        self.values.iter().map(Vec::len).sum::<usize>().saturating_add(HEAD_BYTES)
    }

    /// The sample's bytes.
    pub(super) fn join(&self) -> Vec<u8> {
        self.head.join(&self.values)
    }
}

fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tensor.binary_len());
    tensor.write_binary(&mut bytes);
    bytes
}

/// Name of a class; classes without labels go by their number.
pub(in crate::monitor) fn label_of(manifest: &Manifest, class: usize) -> String {
    manifest.labels.get(class).cloned().unwrap_or_else(|| class.to_string())
}

/// Probability of the class that was said.
pub(super) fn confidence(answer: &Answer) -> Option<f64> {
    match answer {
        Answer::Probabilities(probabilities) => probabilities.get(answer.class()?).copied(),
        Answer::Value(_) => None,
    }
}

/// An answer as a sample tells it.
pub(in crate::monitor) fn said(manifest: &Manifest, answer: &Answer) -> Said {
    match answer {
        Answer::Probabilities(_) => Said {
            label: answer.class().map(|class| fitting(&label_of(manifest, class))),
            confidence: confidence(answer).filter(|confidence| confidence.is_finite()),
            value: None,
        },
        Answer::Value(value) => {
            Said { value: Some(*value).filter(|value| value.is_finite()), ..Said::default() }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use inference::Data;

    pub(crate) fn origin(id: &str, rows: usize) -> Origin {
        Origin {
            id: id.into(),
            at: UnixMillis(1_790_000_000_000),
            model: "m".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            release: Digest::from_bytes([1; 32]),
            batched: vec!["x".into()],
            rows,
        }
    }

    pub(crate) fn inputs(rows: usize) -> Vec<Tensor> {
        let values = (0..rows * 2).map(|i| f32::from(u8::try_from(i).unwrap())).collect();
        vec![
            Tensor::new("x", vec![rows, 2], Data::Fp32(values)).unwrap(),
            Tensor::new("scale", vec![1], Data::Int8(vec![9])).unwrap(),
        ]
    }

    #[test]
    fn one_item_of_a_batch_goes_with_what_all_items_share() {
        let reason = Reason::new(Strategy::Random, 0.5);
        let draft = Draft::new(&origin("q", 3), &inputs(3), 2, Said::default(), reason).unwrap();
        let bytes = draft.join();
        let (head, values) = SampleHead::split(&bytes).unwrap();
        assert_eq!((head.id.as_str(), head.inputs[0].shape.as_slice()), ("q#2", &[1, 2][..]));
        assert_eq!(values, [&[4.0_f32.to_le_bytes(), 5.0_f32.to_le_bytes()].concat()[..], &[9]]);
        let reason = Reason::new(Strategy::Random, 0.5);
        assert!(Draft::new(&origin("q", 3), &inputs(3), 3, Said::default(), reason).is_none());
    }

    #[test]
    fn an_id_of_any_length_fits() {
        let id = origin(&"é".repeat(500), 2).item_id(1);
        assert!(id.len() <= protocol::sample::MAX_TEXT_BYTES && id.ends_with("é#1"), "{id}");
        assert_eq!(origin("a", 1).item_id(0), "a");
    }
}
