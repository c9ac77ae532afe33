//! `flotilla samples`: what devices kept for retraining. A download is a folder: `samples.jsonl`, one line for each
//! sample, and a NumPy file for each of its inputs (texts as JSON). The index is written
//! last, so that it never names what is not there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::sample::{SampleHead, SampleInput, Strategy};
use protocol::{Digest, ModelName, Version};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Context;
use crate::output::{bytes, items, table, text};

/// Which samples.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// Name of the model.
    #[arg(long)]
    model: ModelName,
    /// Of this version only.
    #[arg(long)]
    version: Option<Version>,
    /// Kept for this reason only: random, uncertainty, out_of_reference, disagreement, contradiction.
    #[arg(long)]
    strategy: Option<Strategy>,
    /// From this device only.
    #[arg(long)]
    device: Option<String>,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// What there is, newest first, without the inputs.
    List {
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Fetch samples with their inputs; the server writes down who did.
    Download {
        #[command(flatten)]
        wanted: Wanted,
        /// Folder to write to: samples.jsonl and the inputs as .npy.
        #[arg(short, long, value_name = "FOLDER")]
        out: PathBuf,
    },
}

/// Runs one of them.
///
/// # Errors
/// What the server refused, or the folder.
pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::List { wanted } => list(context, &wanted).await,
        Command::Download { wanted, out } => download(context, &wanted, &out).await,
    }
}

impl Wanted {
    fn query(&self) -> Vec<(&'static str, String)> {
        let version = self.version.as_ref().map(|version| ("version", version.to_string()));
        let strategy = self.strategy.map(|strategy| ("strategy", strategy.to_string()));
        let device = self.device.clone().map(|device| ("device", device));
        [version, strategy, device].into_iter().flatten().collect()
    }
}

async fn list(context: &Context, wanted: &Wanted) -> Result<()> {
    let query = wanted.query();
    let query: Vec<(&str, &str)> = query.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let found = context.client.list(&format!("/models/{}/samples", wanted.model), &query).await?;
    context.format.print(&json!(found), |found| {
        let row = |sample: &Value| {
            let mut cells = [
                "/at",
                "/device",
                "/version",
                "/strategy",
                "/probability",
                "/answer/label",
                "/answer/confidence",
                "/label",
            ]
            .map(|pointer| text(sample, pointer))
            .to_vec();
            cells.push(bytes(sample["size_bytes"].as_u64().unwrap_or(0)));
            cells
        };
        table(
            &[
                "at",
                "device",
                "release",
                "kept for",
                "with probability",
                "said",
                "confidence",
                "true label",
                "size",
            ],
            items(found).iter().map(row).collect(),
            "no device has sent samples of this model; docs/CAPTURE.md says what it takes",
        )
    })
}

async fn download(context: &Context, wanted: &Wanted, out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let path = context.client.in_project(&format!("/models/{}/samples/download", wanted.model));
    let (mut lines, mut cursor, mut size_bytes) = (Vec::new(), None::<String>, 0_u64);
    loop {
        let mut request =
            context.client.request(Method::POST, &path).query(&wanted.query()).query(&[("limit", "500")]);
        if let Some(cursor) = &cursor {
            request = request.query(&[("cursor", cursor)]);
        }
        let page = context.client.json(request).await?;
        for item in items(&page) {
            let (line, size) = keep(item, out)?;
            lines.push(line);
            size_bytes += size;
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    let index = out.join("samples.jsonl");
    let all = lines.iter().fold(String::new(), |all, line| all + &line.to_string() + "\n");
    replace(&index, all.as_bytes())?;
    let said = json!({ "samples": lines.len(), "size_bytes": size_bytes, "index": index });
    context.format.print(&said, |_| {
        format!("{} samples, {}, told of in {}", lines.len(), bytes(size_bytes), index.display())
    })
}

/// Writes one sample's inputs; returns its line of the index.
fn keep(item: &Value, out: &Path) -> Result<(Value, u64)> {
    let name = item.pointer("/sample/digest").and_then(Value::as_str).context("a sample has no digest")?;
    let digest: Digest = name.parse().with_context(|| format!("sample {name}: no digest"))?;
    let content = item["content"].as_str().unwrap_or_default();
    let content = STANDARD.decode(content).with_context(|| format!("sample {digest}: no base64"))?;
    let is_right = Digest::from_bytes(Sha256::digest(&content).into()) == digest;
    ensure!(is_right, "sample {digest}: its content is another one");
    let (head, values) = SampleHead::split(&content)?;
    let mut inputs = serde_json::Map::new();
    for (number, (input, value)) in head.inputs.iter().zip(values).enumerate() {
        let (end, written) = match npy(input, value) {
            Some(written) => ("npy", written),
            None => ("json", serde_json::to_vec(&texts(input, value)?)?),
        };
        // The input's name comes from afar; a file is named by numbers.
        let file = format!("{digest}-{number}.{end}");
        replace(&out.join(&file), &written)?;
        let told = json!({ "file": file, "datatype": input.datatype, "shape": input.shape });
        inputs.insert(input.name.clone(), told);
    }
    let mut line = json!({
        "digest": digest, "device": item["sample"]["device"], "id": head.id, "model": head.model,
        "version": head.version, "release": head.release, "at": item["sample"]["at"], "strategy": head.strategy,
        "probability": head.probability, "answer": head.answer, "inputs": inputs,
    });
    let more = [
        ("beside", head.beside.map(|said| json!(said))),
        ("feature", head.feature.map(Value::from)),
        ("label", head.label.map(Value::from)),
    ];
    for (key, value) in more {
        line[key] = value.unwrap_or(Value::Null);
    }
    Ok((line, u64::try_from(content.len()).unwrap_or(u64::MAX)))
}

/// NumPy's format, version 1.0; none for texts.
fn npy(input: &SampleInput, value: &[u8]) -> Option<Vec<u8>> {
    let descr = match input.datatype.as_str() {
        "BOOL" => "|b1",
        "INT8" => "|i1",
        "UINT8" => "|u1",
        "INT16" => "<i2",
        "UINT16" => "<u2",
        "INT32" => "<i4",
        "UINT32" => "<u4",
        "INT64" => "<i8",
        "UINT64" => "<u8",
        "FP16" => "<f2",
        "FP32" => "<f4",
        "FP64" => "<f8",
        _ => return None,
    };
    // A tuple of one has its comma.
    let shape = input.shape.iter().fold(String::new(), |shape, dim| shape + &dim.to_string() + ",");
    let mut head = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    // Mark, version, length, head and line end together fill whole lines of 64 bytes.
    let padding = 63 - (10 + head.len()) % 64;
    head.extend(std::iter::repeat_n(' ', padding));
    head.push('\n');
    let length = u16::try_from(head.len()).ok()?;
    Some([b"\x93NUMPY\x01\x00", &length.to_le_bytes()[..], head.as_bytes(), value].concat())
}

/// Texts with their lengths before them.
fn texts(input: &SampleInput, mut rest: &[u8]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let cut = || format!("input {:?} is cut off", input.name);
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk::<4>().with_context(cut)?;
        let length = usize::try_from(u32::from_le_bytes(*length))?;
        let (one, behind) = behind.split_at_checked(length).with_context(cut)?;
        all.push(String::from_utf8_lossy(one).into_owned());
        rest = behind;
    }
    let expected = input.shape.iter().product::<u64>();
    ensure!(
        u64::try_from(all.len())? == expected,
        "input {:?} has {} texts, not {expected}",
        input.name,
        all.len()
    );
    Ok(all)
}

/// A file that is whole or not there.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, content)
        .and_then(|()| fs::rename(&part, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(datatype: &str, shape: &[u64]) -> SampleInput {
        SampleInput { name: "x".into(), datatype: datatype.into(), shape: shape.to_vec(), size_bytes: 0 }
    }

    #[test]
    fn a_tensor_becomes_what_numpy_reads() {
        for (shape, told) in [(&[1, 2][..], "(1,2,)"), (&[3], "(3,)"), (&[], "()")] {
            let file = npy(&input("FP32", shape), &[7; 8]).unwrap();
            assert_eq!(&file[..8], b"\x93NUMPY\x01\x00");
            let length = usize::from(u16::from_le_bytes([file[8], file[9]]));
            assert!((10 + length).is_multiple_of(64) && file[9 + length] == b'\n');
            let head = std::str::from_utf8(&file[10..10 + length]).unwrap();
            assert!(head.contains("'descr': '<f4'") && head.contains(told), "{head}");
            assert_eq!(&file[10 + length..], [7; 8]);
        }
        assert!(npy(&input("BYTES", &[1]), b"").is_none());
    }

    #[test]
    fn texts_are_held_against_their_shape() {
        let two = [&2_u32.to_le_bytes()[..], b"ab", &0_u32.to_le_bytes()].concat();
        assert_eq!(texts(&input("BYTES", &[2]), &two).unwrap(), ["ab", ""]);
        assert!(texts(&input("BYTES", &[1]), &two).is_err());
        assert!(texts(&input("BYTES", &[2]), &two[..two.len() - 1]).is_err());
    }

    #[test]
    fn a_sample_becomes_a_line_and_its_files() {
        let head = SampleHead {
            id: "q#1".into(),
            model: "digits".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            release: Digest::from_bytes([1; 32]),
            at: protocol::UnixMillis(0),
            strategy: Strategy::Contradiction,
            probability: 1.0,
            answer: protocol::sample::Said { label: Some("3".into()), confidence: Some(0.9), value: None },
            beside: None,
            feature: None,
            label: Some("8".into()),
            inputs: vec![SampleInput {
                name: "../x".into(),
                datatype: "UINT8".into(),
                shape: vec![1, 2],
                size_bytes: 2,
            }],
        };
        let content = head.join(&[vec![5, 6]]);
        let digest = Digest::from_bytes(Sha256::digest(&content).into());
        let folder = tempfile::tempdir().unwrap();
        let item = |content: &[u8]| json!({ "sample": { "digest": digest, "device": "cam-1", "at": "t" }, "content": STANDARD.encode(content) });
        let (line, size) = keep(&item(&content), folder.path()).unwrap();
        assert_eq!(size, u64::try_from(content.len()).unwrap());
        assert_eq!((&line["label"], &line["strategy"]), (&json!("8"), &json!("contradiction")));
        let file = line["inputs"]["../x"]["file"].as_str().unwrap();
        assert!(fs::read(folder.path().join(file)).unwrap().ends_with(&[5, 6]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(keep(&item(b"another"), folder.path()).is_err());
    }
}
