//! Where the items of a batch come from: one row of a CSV file, one line of a JSONL file, or one picture each.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use inference::{Data, Pieces, ShapeError, Tensor, TensorJson, TensorSpec, TextError};
use release::{ImageLayout, Manifest, Monitor};
use serde::Deserialize;

use super::item::{Item, ItemError};
use super::run::BatchError;
use crate::picture::{Picture, layout_of};

/// Longest line and largest picture, in bytes.
const MAX_ITEM_BYTES: u64 = 64 * 1024 * 1024;
/// Pictures in one folder.
const MAX_PICTURES: usize = 1_000_000;

/// Items in the order of the batch.
pub(super) enum Source {
    Csv(Csv),
    Jsonl(Lines),
    Pictures(Pictures),
}

impl Source {
    /// Opens a file by its ending, or a folder of pictures.
    pub(super) fn open(
        path: &Path,
        manifest: &Manifest,
        inputs: &[TensorSpec],
        label: Option<&str>,
    ) -> Result<Self, BatchError> {
        let failed = |source| BatchError::Read { path: path.to_owned(), source };
        let is_folder = std::fs::metadata(path).map_err(failed)?.is_dir();
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let kind = extension.as_deref().filter(|_| !is_folder);
        if kind == Some("csv") {
            let input = one_input(path, inputs)?;
            let named = columns(manifest, &input);
            return Csv::open(path, input, label, named).map(Self::Csv);
        }
        if label.is_some() {
            return Err(BatchError::NoLabels { path: path.to_owned() });
        }
        match kind {
            None if is_folder => Pictures::open(path, manifest, one_input(path, inputs)?).map(Self::Pictures),
            Some("jsonl" | "ndjson") => Lines::open(path).map(Self::Jsonl).map_err(failed),
            _ => Err(BatchError::Kind { path: path.to_owned() }),
        }
    }

    /// How far it is: bytes or pictures, of how many.
    pub(super) fn place(&self) -> (u64, u64) {
        match self {
            Self::Csv(csv) => (csv.lines.read, csv.lines.size),
            Self::Jsonl(lines) => (lines.read, lines.size),
            Self::Pictures(pictures) => (pictures.next as u64, pictures.names.len() as u64),
        }
    }

    /// The next item.
    pub(super) fn next(&mut self) -> Result<Option<Item>, BatchError> {
        match self {
            Self::Csv(csv) => csv.next(),
            Self::Jsonl(lines) => {
                let Some(line) = lines.next()? else { return Ok(None) };
                let read = line.0.ok_or(ItemError::Text).and_then(|line| request(&line));
                let (inputs, wanted) = match read {
                    Ok((inputs, wanted)) => (Ok(inputs), wanted),
                    Err(error) => (Err(error), Vec::new()),
                };
                Ok(Some(Item { name: lines.number.to_string(), inputs, label: None, wanted }))
            }
            Self::Pictures(pictures) => Ok(pictures.next()),
        }
    }
}

fn one_input(path: &Path, inputs: &[TensorSpec]) -> Result<TensorSpec, BatchError> {
    match inputs {
        [input] => Ok(input.clone()),
        several => Err(BatchError::Inputs { path: path.to_owned(), count: several.len() }),
    }
}

/// The names of the input's columns, where the release says them.
fn columns<'m>(manifest: &'m Manifest, spec: &TensorSpec) -> Option<&'m [String]> {
    match &manifest.monitor {
        Some(Monitor::Tabular { input, columns }) if *input == spec.name => Some(columns),
        _ => None,
    }
}

/// A line; none if it is no UTF-8 text.
struct Line(Option<String>);

/// Lines of a file, each of a bounded length.
pub(super) struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    number: u64,
    read: u64,
    size: u64,
}

impl Lines {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file: BufReader::new(file), number: 0, read: 0, size })
    }

    /// The next line that is not empty.
    fn next(&mut self) -> Result<Option<Line>, BatchError> {
        loop {
            let mut line = Vec::new();
            let got = (&mut self.file).take(MAX_ITEM_BYTES).read_until(b'\n', &mut line);
            let got = got.map_err(|source| BatchError::Read { path: self.path.clone(), source })?;
            self.number += 1;
            self.read += got as u64;
            let line_error =
                |expected| BatchError::Line { path: self.path.clone(), line: self.number, expected };
            if got as u64 == MAX_ITEM_BYTES {
                return Err(line_error("a shorter line"));
            }
            if got == 0 {
                return Ok(None);
            }
            let Ok(text) = String::from_utf8(line) else { return Ok(Some(Line(None))) };
            // Spreadsheets begin a file with a byte order mark.
            let text = if self.number == 1 { text.strip_prefix('\u{feff}').unwrap_or(&text) } else { &text };
            match text.trim_end_matches(['\n', '\r']) {
                "" => {}
                text => return Ok(Some(Line(Some(text.to_owned())))),
            }
        }
    }
}

/// One line of a JSONL file: a request as the local API takes it.
#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    inputs: Vec<TensorJson<'a>>,
    #[serde(default)]
    outputs: Vec<Wanted>,
}

#[derive(Deserialize)]
struct Wanted {
    name: String,
}

/// The tensors, and the names of the outputs that are asked for.
fn request(line: &str) -> Result<(Vec<Tensor>, Vec<String>), ItemError> {
    let request: Request<'_> = serde_json::from_str(line).map_err(ItemError::Json)?;
    let parse = |input: TensorJson<'_>| input.parse(&mut Pieces::default()).map_err(ItemError::Tensor);
    let inputs = request.inputs.into_iter().map(parse).collect::<Result<_, _>>()?;
    Ok((inputs, request.outputs.into_iter().map(|wanted| wanted.name).collect()))
}

/// Rows of a CSV file with a head. All columns but the label are the input's values: by their names where the release
/// says these, else in their order.
pub(super) struct Csv {
    lines: Lines,
    input: TensorSpec,
    columns: Vec<String>,
    label: Option<usize>,
    /// Where each value of the input stands.
    places: Vec<usize>,
}

impl Csv {
    fn open(
        path: &Path,
        input: TensorSpec,
        label: Option<&str>,
        named: Option<&[String]>,
    ) -> Result<Self, BatchError> {
        let failed = |source| BatchError::Read { path: path.to_owned(), source };
        let mut lines = Lines::open(path).map_err(failed)?;
        let line_error = |expected| BatchError::Line { path: path.to_owned(), line: 1, expected };
        let head = lines.next()?.ok_or_else(|| line_error("a head with the columns' names"))?;
        let head = head.0.ok_or_else(|| line_error("UTF-8 text"))?;
        let head = fields(&head).ok_or_else(|| line_error("quotes that end"))?;
        if let Some(column) = doubled(&head) {
            let column = column.chars().take(80).collect();
            return Err(BatchError::DoubleColumn { path: path.to_owned(), column });
        }
        let label = match label {
            None => None,
            Some(name) => Some(head.iter().position(|column| column == name).ok_or_else(|| {
                BatchError::NoColumn { path: path.to_owned(), column: name.into(), columns: head.join(", ") }
            })?),
        };
        let places = places(&head, label, named).ok_or_else(|| BatchError::Columns {
            path: path.to_owned(),
            got: head.join(", "),
            expected: named.unwrap_or_default().join(", "),
        })?;
        let (got, expected) = (places.len(), row_shape(&input).iter().product());
        if got != expected {
            return Err(BatchError::Width { path: path.to_owned(), got, expected });
        }
        Ok(Self { lines, input, columns: head, label, places })
    }

    fn next(&mut self) -> Result<Option<Item>, BatchError> {
        let Some(line) = self.lines.next()? else { return Ok(None) };
        let name = self.lines.number.to_string();
        let (inputs, label) = match line.0.as_deref().ok_or(ItemError::Text).map(fields) {
            Err(error) => (Err(error), None),
            Ok(None) => (Err(ItemError::Quote), None),
            Ok(Some(fields)) if fields.len() != self.columns.len() => {
                (Err(ItemError::Fields { got: fields.len(), expected: self.columns.len() }), None)
            }
            Ok(Some(mut fields)) => {
                let label = self.label.map(|place| fields[place].clone());
                let values = self.places.iter().map(|place| std::mem::take(&mut fields[*place]));
                (self.row(values.collect()).map(|tensor| vec![tensor]), label)
            }
        };
        Ok(Some(Item { name, inputs, label, wanted: Vec::new() }))
    }

    fn row(&self, fields: Vec<String>) -> Result<Tensor, ItemError> {
        row(&self.input, fields).map_err(|error| match error {
            RowError::Shape(error) => ItemError::Shape(error),
            RowError::Value { place, why } => {
                let column = self.columns[self.places[place]].trim().chars().take(80).collect();
                ItemError::Value { line: self.lines.number, column, why }
            }
        })
    }
}

/// A name that several columns have: which of them is meant is anybody's guess.
fn doubled(head: &[String]) -> Option<&str> {
    let mut seen = BTreeSet::new();
    head.iter().map(|column| column.trim()).find(|column| !seen.insert(*column))
}

/// Where each value of the input stands in a row; none when the head's names are not those that the release knows.
fn places(head: &[String], label: Option<usize>, named: Option<&[String]>) -> Option<Vec<usize>> {
    let values: Vec<usize> = (0..head.len()).filter(|place| Some(*place) != label).collect();
    let Some(named) = named else { return Some(values) };
    let find = |name: &String| values.iter().copied().find(|place| head[*place].trim() == name);
    named.iter().map(find).collect::<Option<Vec<_>>>().filter(|places| places.len() == values.len())
}

/// Fields of one line: separated by commas, in quotes where they hold some, a quote in quotes doubled. None when a
/// quote doesn't end.
fn fields(line: &str) -> Option<Vec<String>> {
    let (mut fields, mut field, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut rest = line.chars().peekable();
    while let Some(letter) = rest.next() {
        match letter {
            '"' if is_quoted && rest.peek() == Some(&'"') => {
                rest.next();
                field.push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(std::mem::take(&mut field)),
            letter => field.push(letter),
        }
    }
    fields.push(field);
    (!is_quoted).then_some(fields)
}

/// Why a row is none of the input's.
#[derive(Debug)]
enum RowError {
    /// One of its values, from 0 in the input's order.
    Value {
        place: usize,
        why: TextError,
    },
    Shape(ShapeError),
}

fn row(input: &TensorSpec, fields: Vec<String>) -> Result<Tensor, RowError> {
    let data =
        Data::from_texts(input.datatype, fields).map_err(|(place, why)| RowError::Value { place, why })?;
    Tensor::new(input.name.clone(), row_shape(input), data).map_err(RowError::Shape)
}

/// The input of one row: what is open has one place.
fn row_shape(input: &TensorSpec) -> Vec<usize> {
    input.shape.iter().map(|dim| usize::try_from(*dim).unwrap_or(1)).collect()
}

/// Pictures of a folder, by name.
pub(super) struct Pictures {
    folder: PathBuf,
    names: Vec<PathBuf>,
    next: usize,
    input: TensorSpec,
    layout: ImageLayout,
}

impl Pictures {
    fn open(folder: &Path, manifest: &Manifest, input: TensorSpec) -> Result<Self, BatchError> {
        let names = pictures_of(folder)?;
        let layout = layout_of(manifest, &input);
        Ok(Self { folder: folder.to_owned(), names, next: 0, input, layout })
    }

    fn next(&mut self) -> Option<Item> {
        let name = self.names.get(self.next)?;
        self.next += 1;
        let read = crate::durable::read_bounded(&self.folder.join(name), MAX_ITEM_BYTES);
        let inputs = match read {
            Ok(Some(bytes)) => Picture::decode(&bytes)
                .and_then(|picture| picture.tensor(&self.input, self.layout))
                .map(|tensor| vec![tensor])
                .map_err(ItemError::Picture),
            Ok(None) => Err(ItemError::Gone),
            Err(error) => Err(ItemError::Read(error)),
        };
        Some(Item { name: name.display().to_string(), inputs, label: None, wanted: Vec::new() })
    }
}

/// Their names in order; never none. Hidden files are somebody else's, as in a watched folder.
fn pictures_of(folder: &Path) -> Result<Vec<PathBuf>, BatchError> {
    let failed = |source| BatchError::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = PathBuf::from(entry.map_err(failed)?.file_name());
        let is_hidden = name.to_string_lossy().starts_with('.');
        if Picture::is_named(&name) && !is_hidden {
            names.push(name);
        }
        if names.len() > MAX_PICTURES {
            return Err(BatchError::TooMany { path: folder.to_owned(), max: MAX_PICTURES });
        }
    }
    if names.is_empty() {
        return Err(BatchError::NoPictures { path: folder.to_owned() });
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use inference::Datatype;

    fn csv(text: &[u8], label: Option<&str>, named: Option<&[String]>) -> Result<Csv, BatchError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let input = TensorSpec { name: "x".into(), datatype: Datatype::Int64, shape: vec![-1, 2] };
        Csv::open(file.path(), input, label, named)
    }

    fn values(csv: &mut Csv) -> Vec<Result<Data, String>> {
        let rows = std::iter::from_fn(|| csv.next().unwrap());
        let data = |item: Item| match item.inputs {
            Ok(tensors) => Ok(tensors[0].data().clone()),
            Err(error) => Err(error.to_string()),
        };
        rows.map(data).collect()
    }

    #[test]
    fn columns_go_by_the_names_that_the_release_knows() {
        let named = ["t", "p"].map(str::to_owned);
        let mut known = csv(b"p,label,t\n1,a,2\n", Some("label"), Some(&named)).unwrap();
        assert_eq!(values(&mut known), [Ok(Data::Int64(vec![2, 1]))]);
        let mut in_order = csv(b"a,b\n1,2\n", None, None).unwrap();
        assert_eq!(values(&mut in_order), [Ok(Data::Int64(vec![1, 2]))]);
        for (other, count) in [("a", 1), ("a,b,c", 3)] {
            let error = csv(other.as_bytes(), None, None).err().expect(other).to_string();
            assert!(
                error.ends_with(&format!("has {count} columns of values, the model's input has 2")),
                "{error}"
            );
        }
        for other in ["a,b", "t", "t,p,q"] {
            let error = csv(other.as_bytes(), None, Some(&named)).err().expect(other).to_string();
            assert!(error.contains(other.split(',').next().unwrap()) && error.ends_with("t, p"), "{error}");
        }
    }

    #[test]
    fn a_value_that_is_none_is_named_by_its_line_and_column_in_the_file() {
        let named = ["t", "p"].map(str::to_owned);
        let text = b"p,label, t\n1,a,2\n\ninf,a,2\n1,a,red\n";
        let mut rows = csv(text, Some("label"), Some(&named)).unwrap();
        let [Ok(_), Err(first), Err(second)] = &values(&mut rows)[..] else { panic!("three rows") };
        assert!(first.starts_with("column \"p\" of line 4: ") && first.ends_with("got inf"), "{first}");
        assert!(second.starts_with("column \"t\" of line 5: ") && second.ends_with("got red"), "{second}");
    }

    #[test]
    fn a_name_of_two_columns_is_refused() {
        let named = ["t", "p"].map(str::to_owned);
        for (head, column) in [("t,p,t", "\"t\""), ("p,label, p", "\"p\""), ("label,label,t,p", "\"label\"")]
        {
            for named in [None, Some(&named[..])] {
                let text = csv(head.as_bytes(), Some("label"), named).err().expect(head).to_string();
                assert!(text.ends_with(&format!("has more than one column {column}")), "{text}");
            }
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_name_and_a_line_of_other_text_is_one_error() {
        let mut rows =
            csv(b"\xef\xbb\xbflabel,a,b\r\nx,1,2\r\nx,\xff,2\r\nx,3,4\r\n", Some("label"), None).unwrap();
        let texts =
            [Ok(Data::Int64(vec![1, 2])), Err("it is no UTF-8 text".into()), Ok(Data::Int64(vec![3, 4]))];
        assert_eq!(values(&mut rows), texts);
    }

    #[test]
    fn a_folder_without_pictures_is_no_input() {
        let dir = tempfile::tempdir().unwrap();
        for other in ["notes.txt", "png", "a.gif", ".hidden.png"] {
            std::fs::write(dir.path().join(other), "").unwrap();
        }
        let refused = pictures_of(dir.path()).unwrap_err().to_string();
        assert!(refused.ends_with("holds no pictures: .png, .jpg and .jpeg files are asked"), "{refused}");
        for name in ["b.JPG", "a.png"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(pictures_of(dir.path()).unwrap(), [Path::new("a.png"), Path::new("b.JPG")]);
    }

    #[test]
    fn fields_may_hold_commas_and_quotes() {
        assert_eq!(fields("a,,\"b,\"\"c\"\"\"").unwrap(), ["a", "", "b,\"c\""]);
        assert_eq!(fields("").unwrap(), [""]);
        assert_eq!(fields("a,\"b"), None);
    }

    #[test]
    fn a_row_takes_the_shape_and_the_type_of_the_input() {
        let spec = |datatype| TensorSpec { name: "x".into(), datatype, shape: vec![-1, 2] };
        let texts = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        let numbers = row(&spec(Datatype::Fp32), texts([" 1.5", ""])).unwrap();
        assert_eq!(numbers.shape(), [1, 2]);
        let Data::Fp32(values) = numbers.data() else { panic!("not FP32") };
        assert!((values[0] - 1.5).abs() < f32::EPSILON && values[1].is_nan());
        let kept = row(&spec(Datatype::Bytes), texts(["red", ""])).unwrap();
        assert_eq!(kept.data(), &Data::Bytes(texts(["red", ""])));
        for (datatype, bent) in [(Datatype::Fp32, "red"), (Datatype::Fp32, "inf"), (Datatype::Uint8, "1.7")] {
            let error = row(&spec(datatype), texts(["1", bent])).unwrap_err();
            assert!(matches!(error, RowError::Value { place: 1, .. }), "{bent}: {error:?}");
        }
        assert!(row(&spec(Datatype::Fp32), vec!["1".into()]).is_err(), "too few values");
    }

    #[test]
    fn a_line_is_a_request_of_the_protocol() {
        let inputs = r#""inputs":[{"name":"x","datatype":"INT64","shape":[2],"data":[1,2]}]"#;
        let (tensors, wanted) = request(&format!("{{\"id\":\"a\",{inputs}}}")).unwrap();
        assert_eq!((tensors[0].data(), wanted.len()), (&Data::Int64(vec![1, 2]), 0));
        let outputs = r#""outputs":[{"name":"y","parameters":{"classification":1}},{"name":"z"}]"#;
        assert_eq!(request(&format!("{{{inputs},{outputs}}}")).unwrap().1, ["y", "z"]);
        assert!(request("{}").unwrap_err().to_string().contains("inputs"));
        assert!(request(r#"{"inputs":[{"name":"x","datatype":"X","shape":[1],"data":[1]}]}"#).is_err());
    }
}
