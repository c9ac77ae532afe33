//! The answers of a batch as text: JSONL, or CSV by the file's ending.

use std::io::{self, Write};
use std::path::Path;

use inference::{Data, Tensor, TensorSpec};
use serde::Serialize;

use super::output::Output;

/// Endings of a file of lines.
const JSONL: [&str; 2] = ["jsonl", "ndjson"];

/// One item's outcome.
pub(super) struct Row<'a> {
    /// The item.
    pub(super) name: &'a str,
    /// Its class, if the model has some.
    pub(super) class: Option<&'a str>,
    /// Its true class, if the batch said it.
    pub(super) label: Option<&'a str>,
    /// The model's outputs, or why there are none.
    pub(super) outputs: Result<&'a [Tensor], &'a str>,
}

/// The same as a line of JSONL. Numbers are written as the local API writes them.
#[derive(Serialize)]
struct Line<'a> {
    item: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<&'a [Tensor]>,
}

/// The file, or stdout. A file that isn't finished is removed.
pub(super) struct Sink {
    out: Output,
    /// Values of each output in a row of CSV; none for JSONL.
    csv: Option<Vec<(String, usize)>>,
}

impl Sink {
    /// `-` is stdout, as JSONL. `outputs` are the model's.
    pub(super) fn open(path: &Path, outputs: &[TensorSpec]) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { out: Output::stream(io::stdout()), csv: None });
        }
        let has_ending =
            |ending: &str| path.extension().is_some_and(|given| given.eq_ignore_ascii_case(ending));
        let is_csv = has_ending("csv");
        let out = Output::open(path)?;
        if out.is_file() && !is_csv && !JSONL.into_iter().any(has_ending) {
            let expected = "its name has to end in .csv, .jsonl or .ndjson; - prints JSONL";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, expected));
        }
        let csv = is_csv.then(|| outputs.iter().map(|spec| (spec.name.clone(), row_values(spec))).collect());
        let mut sink = Self { out, csv };
        sink.write_head()?;
        Ok(sink)
    }

    /// Writes one outcome, and says whether it is an answer: one that has no place in a row of CSV is an error.
    pub(super) fn write(&mut self, row: &Row<'_>) -> io::Result<bool> {
        match &self.csv {
            Some(outputs) => {
                let count = outputs.iter().map(|(_, count)| count).sum();
                self.write_csv(row, count)
            }
            None => self.write_json(row).map(|()| row.outputs.is_ok()),
        }
    }

    /// Gives the file its name.
    pub(super) fn finish(self) -> io::Result<()> {
        self.out.finish()
    }

    fn write_json(&mut self, row: &Row<'_>) -> io::Result<()> {
        let line = Line {
            item: row.name,
            class: row.class,
            label: row.label,
            error: row.outputs.err(),
            outputs: row.outputs.ok(),
        };
        serde_json::to_writer(&mut self.out, &line)?;
        self.out.write_all(b"\n")
    }

    fn write_head(&mut self) -> io::Result<()> {
        let Some(outputs) = &self.csv else { return Ok(()) };
        let places = |(name, count): &(String, usize)| {
            (0..*count).map(|place| format!("{name}_{place}")).collect::<Vec<_>>()
        };
        let head: Vec<String> = outputs.iter().flat_map(places).collect();
        self.write_fields(["item", "class", "label", "error"].into_iter().map(str::to_owned).chain(head))
    }

    fn write_csv(&mut self, row: &Row<'_>, count: usize) -> io::Result<bool> {
        let mut error = row.outputs.err().unwrap_or_default();
        let mut values: Vec<String> = row.outputs.unwrap_or_default().iter().flat_map(values).collect();
        if row.outputs.is_ok() && values.len() != count {
            error = "an item of several rows, or with some of the outputs, fits only into a .jsonl file";
            values.clear();
        }
        values.resize(count, String::new());
        let texts = [row.name, row.class.unwrap_or_default(), row.label.unwrap_or_default(), error];
        self.write_fields(texts.into_iter().map(str::to_owned).chain(values))?;
        Ok(error.is_empty())
    }

    fn write_fields(&mut self, fields: impl Iterator<Item = String>) -> io::Result<()> {
        let quoted: Vec<String> = fields.map(quoted).collect();
        writeln!(self.out, "{}", quoted.join(","))
    }
}

/// Values that one row of the batch has in this output.
fn row_values(spec: &TensorSpec) -> usize {
    spec.shape.iter().map(|dim| usize::try_from(*dim).unwrap_or(1)).product()
}

/// A row is one line: what would end it (in an error's words, in a file's name) becomes a space.
fn quoted(field: String) -> String {
    let field =
        if field.contains(['\n', '\r']) { field.trim_end().replace(['\n', '\r'], " ") } else { field };
    if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

fn values(output: &Tensor) -> Vec<String> {
    match output.data() {
        Data::Bytes(texts) => texts.clone(),
        Data::Fp32(numbers) => numbers.iter().map(ToString::to_string).collect(),
        Data::Int64(numbers) => numbers.iter().map(ToString::to_string).collect(),
        Data::Uint64(numbers) => numbers.iter().map(ToString::to_string).collect(),
        other => other.to_f64().iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inference::Datatype;

    #[test]
    fn a_file_appears_when_it_is_complete_and_holds_every_row() {
        let dir = tempfile::tempdir().unwrap();
        let scores = [Tensor::new("scores", vec![1, 2], Data::Fp32(vec![0.1, 0.75])).unwrap()];
        let spec = TensorSpec { name: "scores".into(), datatype: Datatype::Fp32, shape: vec![-1, 2] };
        let rows = [
            Row { name: "a,b", class: Some("cat"), label: None, outputs: Ok(&scores) },
            Row { name: "2", class: None, label: Some("dog"), outputs: Err("too \"large\"") },
        ];
        for (name, expected) in [
            (
                "out.csv",
                "item,class,label,error,scores_0,scores_1\n\"a,b\",cat,,,0.1,0.75\n2,,dog,\"too \"\"large\"\"\",,\n",
            ),
            (
                "out.jsonl",
                concat!(
                    r#"{"item":"a,b","class":"cat","outputs":[{"name":"scores","datatype":"FP32","shape":[1,2],"data":[0.1,0.75]}]}"#,
                    "\n",
                    r#"{"item":"2","label":"dog","error":"too \"large\""}"#,
                    "\n"
                ),
            ),
        ] {
            let path = dir.path().join(name);
            let mut sink = Sink::open(&path, std::slice::from_ref(&spec)).unwrap();
            let answered = rows.each_ref().map(|row| sink.write(row).unwrap());
            assert_eq!(answered, [true, false]);
            assert!(!path.exists());
            sink.finish().unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        }
        let two = [Tensor::new("scores", vec![2, 2], Data::Fp32(vec![0.1; 4])).unwrap()];
        let row = Row { name: "two", class: None, label: None, outputs: Ok(&two) };
        for (name, fits) in [("two.csv", false), ("two.jsonl", true)] {
            let mut sink = Sink::open(&dir.path().join(name), std::slice::from_ref(&spec)).unwrap();
            assert_eq!(sink.write(&row).unwrap(), fits, "{name}");
        }
        drop(Sink::open(&dir.path().join("broken.CSV"), std::slice::from_ref(&spec)).unwrap());
        drop(Sink::open(&dir.path().join("broken.NDJSON"), std::slice::from_ref(&spec)).unwrap());
        for name in ["out.txt", "out", "csv", "out.csv.gz"] {
            let refused = Sink::open(&dir.path().join(name), std::slice::from_ref(&spec)).err().expect(name);
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{name}");
            assert!(refused.to_string().contains(".csv, .jsonl or .ndjson"), "{refused}");
        }
        assert!(Sink::open(Path::new("/dev/null"), &[]).is_ok(), "what is no file needs no ending");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "what is not finished leaves nothing");
    }
}
