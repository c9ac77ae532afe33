//! One batch from its first item to its last.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use inference::features::{self, Answer};
use inference::{Tensor, TensorSpec};
use profile::Reference;
use protocol::{ModelName, Version};

use super::item::ItemError;
use super::progress::Progress;
use super::sink::{Row, Sink};
use super::source::Source;
use crate::durable::DurableError;
use crate::slots::{self, BootStore, LoadReleaseError, Loaded, Shelf};

/// What is asked.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which model; may be left out when the device holds one.
    pub model: Option<ModelName>,
    /// A `.csv` or `.jsonl` file, or a folder of pictures.
    pub input: PathBuf,
    /// A `.csv` or `.jsonl` file, or `-`.
    pub output: PathBuf,
    /// The column of a CSV file with the true class.
    pub label: Option<String>,
    /// Draw no progress bar.
    pub is_quiet: bool,
}

/// Why a batch did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// What the device holds.
    #[error("the boot record can't be read")]
    Boot(#[source] DurableError),
    /// No such release here.
    #[error("{wanted}; this device holds {held}")]
    NoRelease {
        /// What was asked.
        wanted: String,
        /// What is here.
        held: String,
    },
    /// The release can't be loaded.
    #[error("release {version} of {model} can't be loaded")]
    Load {
        /// Which model.
        model: ModelName,
        /// Which release.
        version: Version,
        /// Why.
        source: Box<LoadReleaseError>,
    },
    /// The input can't be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The input is of no known kind.
    #[error("{path} is neither a .csv nor a .jsonl file nor a folder of pictures", path = path.display())]
    Kind {
        /// File.
        path: PathBuf,
    },
    /// The model has several inputs.
    #[error("{path} has values for one input, the model has {count}; use a .jsonl file", path = path.display())]
    Inputs {
        /// File or folder.
        path: PathBuf,
        /// The model's inputs.
        count: usize,
    },
    /// The file breaks off or is none of its kind.
    #[error("line {line} of {path} must be {expected}", path = path.display())]
    Line {
        /// File.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is needed.
        expected: &'static str,
    },
    /// No such column.
    #[error("{path} has no column {column:?}; it has {columns}", path = path.display())]
    NoColumn {
        /// File.
        path: PathBuf,
        /// What was asked.
        column: String,
        /// What is there.
        columns: String,
    },
    /// Two columns of one name.
    #[error("{path} has more than one column {column:?}", path = path.display())]
    DoubleColumn {
        /// File.
        path: PathBuf,
        /// Their name, cut to 80 characters.
        column: String,
    },
    /// Columns that are not those of the release.
    #[error("{path} has the columns {got}; the release knows them as {expected}", path = path.display())]
    Columns {
        /// File.
        path: PathBuf,
        /// What the head says, without the label.
        got: String,
        /// What the signed manifest says.
        expected: String,
    },
    /// More or fewer columns than the input has values.
    #[error("{path} has {got} columns of values, the model's input has {expected}", path = path.display())]
    Width {
        /// File.
        path: PathBuf,
        /// In the head, without the label.
        got: usize,
        /// Values of one row.
        expected: usize,
    },
    /// A label's column of something without columns.
    #[error("{path} has no columns: --label is for .csv files", path = path.display())]
    NoLabels {
        /// File or folder.
        path: PathBuf,
    },
    /// The answers would replace what is asked.
    #[error("{path} is both the input and the output", path = path.display())]
    SameFile {
        /// File.
        path: PathBuf,
    },
    /// A folder with nothing to ask.
    #[error("{path} holds no pictures: .png, .jpg and .jpeg files are asked", path = path.display())]
    NoPictures {
        /// Folder.
        path: PathBuf,
    },
    /// Too many files.
    #[error("{path} holds more than {max} pictures", path = path.display())]
    TooMany {
        /// Folder.
        path: PathBuf,
        /// The bound.
        max: usize,
    },
    /// The output can't be written.
    #[error("cannot write {path}", path = path.display())]
    Write {
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// How a batch went.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Which model.
    pub model: ModelName,
    /// Which release.
    pub version: Version,
    /// Items with an answer.
    pub answered: u64,
    /// Items that could not be asked or that the model refused; each says why in the output.
    pub refused: u64,
    /// Answered items whose true class was known.
    pub labelled: u64,
    /// Those that the model got right.
    pub right: u64,
}

/// Runs the committed release over all items.
///
/// # Errors
/// [`BatchError`]; the output doesn't have its name then.
pub fn run(state_dir: &Path, options: &Options) -> Result<Summary, BatchError> {
    let loaded = committed(state_dir, options.model.as_ref())?;
    let spec = loaded.runtime.spec();
    let mut source = Source::open(&options.input, &loaded.manifest, &spec.inputs, options.label.as_deref())?;
    if is_same(&options.input, &options.output) {
        return Err(BatchError::SameFile { path: options.output.clone() });
    }
    let write_error = |source| BatchError::Write { path: options.output.clone(), source };
    let mut sink = Sink::open(&options.output, &spec.outputs).map_err(write_error)?;
    let mut progress = Progress::new(options.is_quiet);
    let classes = Reference::parse(&loaded.reference).map_or(0, |reference| reference.schema.classes());
    let (model, version) = (loaded.model.clone(), loaded.release.version.clone());
    let mut summary = Summary { model, version, answered: 0, refused: 0, labelled: 0, right: 0 };
    while let Some(item) = source.next()? {
        let inputs = known_label(item.label.as_deref(), &loaded.manifest.labels).and(item.inputs);
        let inputs = inputs.and_then(|inputs| known_outputs(&item.wanted, &spec.outputs).map(|()| inputs));
        let outputs = inputs.and_then(|inputs| loaded.runtime.infer(&inputs).map_err(ItemError::Infer));
        let class = outputs.as_ref().ok().and_then(|outputs| class(outputs, classes));
        let class = class.and_then(|class| loaded.manifest.labels.get(class)).map(String::as_str);
        let outputs = outputs.map(|outputs| chosen(outputs, &item.wanted));
        let outputs = outputs.map_err(|error| crate::chain(&error));
        let outputs = outputs.as_deref().map_err(String::as_str);
        let row = Row { name: &item.name, class, label: item.label.as_deref(), outputs };
        let is_answered = sink.write(&row).map_err(write_error)?;
        summary.count(is_answered, class, item.label.as_deref());
        let (done, of) = source.place();
        progress.at(done, of, summary.answered + summary.refused);
    }
    sink.finish().map_err(write_error)?;
    progress.finish(summary.answered + summary.refused);
    Ok(summary)
}

/// Whether both are one file, by whatever names.
fn is_same(input: &Path, output: &Path) -> bool {
    let id = |path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    id(input).is_some_and(|input| id(output) == Some(input))
}

impl Summary {
    fn count(&mut self, is_answered: bool, class: Option<&str>, label: Option<&str>) {
        if !is_answered {
            self.refused += 1;
            return;
        }
        self.answered += 1;
        if let Some((class, label)) = class.zip(label) {
            self.labelled += 1;
            self.right += u64::from(class == label);
        }
    }
}

/// An output that the model doesn't give.
fn known_outputs(wanted: &[String], outputs: &[TensorSpec]) -> Result<(), ItemError> {
    let is_known = |name: &String| outputs.iter().any(|output| output.name == *name);
    let Some(unknown) = wanted.iter().find(|name| !is_known(name)) else { return Ok(()) };
    let known: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
    Err(ItemError::Output { name: unknown.chars().take(80).collect(), known: known.join(", ") })
}

/// The outputs that are asked for; all, when none is named.
fn chosen(mut outputs: Vec<Tensor>, wanted: &[String]) -> Vec<Tensor> {
    outputs.retain(|output| wanted.is_empty() || wanted.iter().any(|name| name == output.name()));
    outputs
}

/// A label that is no class would count as a wrong answer of the model; a blank one says nothing.
fn known_label(label: Option<&str>, classes: &[String]) -> Result<(), ItemError> {
    if label.is_some_and(|label| label.trim().is_empty()) {
        return Err(ItemError::NoLabel);
    }
    let is_unknown = |label: &&str| !classes.is_empty() && !classes.iter().any(|class| class == label);
    label.filter(is_unknown).map_or(Ok(()), |label| Err(ItemError::Label(label.chars().take(80).collect())))
}

/// The class that the model says; none for several rows at once, or without classes.
fn class(outputs: &[Tensor], classes: usize) -> Option<usize> {
    match features::answers(outputs, classes).as_slice() {
        [answer] => Answer::class(answer),
        _ => None,
    }
}

/// The release that this device has committed, read anew and hashed.
fn committed(state_dir: &Path, wanted: Option<&ModelName>) -> Result<Loaded, BatchError> {
    let record = BootStore::read(state_dir).map_err(BatchError::Boot)?.unwrap_or_default();
    let mut held: Vec<_> =
        record.models.into_iter().filter_map(|(model, record)| Some((model, record.active?))).collect();
    let names: Vec<&str> = held.iter().map(|(model, _)| model.as_str()).collect();
    let names = if names.is_empty() { "no committed release".to_owned() } else { names.join(", ") };
    let no_release = |wanted: String| BatchError::NoRelease { wanted, held: names.clone() };
    let place = match wanted {
        Some(wanted) => held.iter().position(|(model, _)| model == wanted),
        None if held.len() == 1 => Some(0),
        None => return Err(no_release("name one model with --model".into())),
    };
    let Some(place) = place else {
        let model = wanted.map(ModelName::as_str).unwrap_or_default();
        return Err(no_release(format!("no release of {model} is committed here")));
    };
    let (model, held) = held.swap_remove(place);
    let shelf = Shelf::open(state_dir).map_err(BatchError::Boot)?;
    slots::load(&shelf, &model, &held).map_err(|source| BatchError::Load {
        model,
        version: held.release.version,
        source: source.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_known_by_another_name_too() {
        let dir = tempfile::tempdir().unwrap();
        let (input, other) = (dir.path().join("in.csv"), dir.path().join("out.csv"));
        std::fs::write(&input, "a\n1\n").unwrap();
        assert!(!is_same(&input, &other), "there is no output yet");
        std::os::unix::fs::symlink(&input, &other).unwrap();
        assert!(is_same(&input, &input) && is_same(&input, &other));
        assert!(!is_same(&input, Path::new("-")));
    }

    #[test]
    fn a_label_must_be_a_class_where_the_model_has_classes() {
        let classes = ["cat", "dog"].map(str::to_owned);
        for label in [None, Some("cat"), Some("dog")] {
            assert!(known_label(label, &classes).is_ok(), "{label:?}");
        }
        for label in ["Cat", "2"] {
            assert!(matches!(known_label(Some(label), &classes), Err(ItemError::Label(_))), "{label:?}");
        }
        assert!(known_label(Some("3.5"), &[]).is_ok());
        for blank in ["", " \t"] {
            for classes in [&classes[..], &[]] {
                assert!(matches!(known_label(Some(blank), classes), Err(ItemError::NoLabel)), "{blank:?}");
            }
        }
    }

    #[test]
    fn an_item_gets_the_outputs_that_it_names_and_no_other_name_is_passed_over() {
        let spec = |name: &str| TensorSpec {
            name: name.into(),
            datatype: inference::Datatype::Fp32,
            shape: vec![-1, 1],
        };
        let tensor = |name| Tensor::new(name, vec![1, 1], inference::Data::Fp32(vec![0.5])).unwrap();
        let given = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            known_outputs(&wanted, &[spec("boxes"), spec("scores")]).map_err(|error| error.to_string())?;
            let outputs = chosen(vec![tensor("boxes"), tensor("scores")], &wanted);
            Ok::<_, String>(outputs.iter().map(|output| output.name().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(given(&[]).unwrap(), ["boxes", "scores"]);
        assert_eq!(given(&["scores"]).unwrap(), ["scores"]);
        let refused = "output \"score\" is unknown; the model gives boxes, scores";
        assert_eq!(given(&["boxes", "score"]).unwrap_err(), refused);
    }
}
