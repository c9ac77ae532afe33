//! `flotilla reference build`: a release's reference profile, counted by running its own variant over training
//! data with exactly the code that devices run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use inference::reference::{self, TrainingRow};
use inference::{Data, Model, Spec, Tensor, TensorSpec};
use profile::Reference;
use serde_json::json;

use crate::output::{Format, facts};
use crate::spec::ReleaseSpec;

/// What to do with a reference profile.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run a release's variant over training data and write its profile.
    Build(Build),
}

/// Where everything is.
#[derive(Debug, clap::Args)]
pub(crate) struct Build {
    /// The build spec of the release (release.toml).
    #[arg(value_name = "SPEC", required_unless_present = "spec", conflicts_with = "spec")]
    spec_place: Option<PathBuf>,
    /// The same, by name.
    #[arg(long, value_name = "SPEC")]
    spec: Option<PathBuf>,
    /// Training data as CSV: a header, a column `label` (may be absent), the other columns are the input's values row by row.
    #[arg(long, required_unless_present = "empty")]
    data: Option<PathBuf>,
    /// Write a profile of no data instead, for inputs that no CSV holds (several inputs, texts).
    #[arg(long, conflicts_with_all = ["data", "variant"])]
    empty: bool,
    /// Where to write the profile [default: what the spec names as `reference`].
    #[arg(long)]
    out: Option<PathBuf>,
    /// The variant to run [default: the spec's first].
    #[arg(long)]
    variant: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// When a file can't be read or written, the model can't be loaded, or a row doesn't fit; the row is named.
pub(crate) fn run(command: &Command, format: Format) -> Result<()> {
    let Command::Build(args) = command;
    let path =
        args.spec_place.as_ref().or(args.spec.as_ref()).ok_or_else(|| anyhow!("no build spec was named"))?;
    let spec = ReleaseSpec::read(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let out = args.out.clone().unwrap_or_else(|| folder.join(&spec.reference));
    let Counted { reference, rows, variant } = match &args.data {
        Some(data) => count(&spec, folder, data, args.variant.as_deref())?,
        None => no_data(&spec)?,
    };
    let bytes = reference.to_json();
    fs::write(&out, &bytes).with_context(|| format!("cannot write {}", out.display()))?;
    let features: Vec<&str> = reference.schema.features.iter().map(|feature| feature.name.as_str()).collect();
    let value = json!({
        "file": out, "bytes": bytes.len(), "rows": rows, "variant": variant,
        "features": features, "classes": reference.schema.classes(),
    });
    format.print(&value, |value| {
        facts(&[
            ("written", out.display().to_string()),
            ("rows", value["rows"].to_string()),
            ("variant", variant.clone().unwrap_or_else(|| "none was run".into())),
            (
                "features",
                if features.is_empty() {
                    "none (the spec has no [monitor])".into()
                } else {
                    features.join(", ")
                },
            ),
        ])
    })
}

/// A profile, and what it was made of.
struct Counted {
    reference: Reference,
    rows: usize,
    variant: Option<String>,
}

fn count(spec: &ReleaseSpec, folder: &Path, data: &Path, variant: Option<&str>) -> Result<Counted> {
    let (variant, model) = load(spec, folder, variant)?;
    let rows = read_rows(data, model.spec())?;
    let rows_read = rows.len();
    let bar = progress(rows_read);
    let extractor = inference::features::extractor(spec.monitor.as_ref());
    let built = reference::build(&model, &extractor, rows.into_iter(), |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    Ok(Counted { reference: built?, rows: rows_read, variant: Some(variant) })
}

fn no_data(spec: &ReleaseSpec) -> Result<Counted> {
    if spec.monitor.is_some() {
        bail!("[monitor] asks for features, and a profile of no data has none: leave it out");
    }
    Ok(Counted { reference: Reference::of_no_data(spec.labels.clone())?, rows: 0, variant: None })
}

fn load(spec: &ReleaseSpec, folder: &Path, wanted: Option<&str>) -> Result<(String, Model)> {
    let found = spec.variants.iter().find(|variant| wanted.is_none_or(|wanted| variant.name == wanted));
    let variant = found.ok_or_else(|| anyhow!("the spec has no variant {:?}", wanted.unwrap_or("at all")))?;
    let file = folder.join(&variant.file);
    let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let signature = Spec::from_parts(&spec.inputs, &spec.outputs, &spec.pre, &spec.post, &spec.labels)?;
    let model = Model::load(&bytes, signature).with_context(|| format!("cannot load {}", file.display()))?;
    Ok((variant.name.clone(), model))
}

/// Rows of a CSV file: a header, `label` among its columns or not, then the input's values.
///
/// # Errors
/// When it can't be read or a row doesn't fit; the line is named.
pub(crate) fn read_rows(path: &Path, spec: &Spec) -> Result<Vec<TrainingRow>> {
    rows(path, spec, |_| Ok(()))
}

/// The same, of which each label is one of the release's.
///
/// # Errors
/// The same, and when a label is none of them.
pub(crate) fn read_labelled(path: &Path, spec: &Spec) -> Result<Vec<TrainingRow>> {
    rows(path, spec, |row| row.label.as_deref().map_or(Ok(()), |label| known(label, &spec.labels)))
}

/// Most labels that an error names.
const MAX_NAMED: usize = 10;

fn known(label: &str, labels: &[String]) -> Result<()> {
    if labels.iter().any(|known| known == label) {
        return Ok(());
    }
    let more = if labels.len() > MAX_NAMED { ", .." } else { "" };
    let named =
        labels.iter().take(MAX_NAMED).map(|label| format!("{label:?}")).collect::<Vec<_>>().join(", ");
    bail!("the label {label:?} isn't one of the release's ({named}{more})")
}

fn rows(path: &Path, spec: &Spec, check: impl Fn(&TrainingRow) -> Result<()>) -> Result<Vec<TrainingRow>> {
    let [input] = spec.inputs.as_slice() else {
        bail!("training data as CSV fits a model with one input; this one has {}", spec.inputs.len());
    };
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').map(str::trim).collect();
    let label_column = header.iter().position(|name| *name == "label");
    let rows = lines.enumerate().filter(|(_, line)| !line.trim().is_empty());
    rows.map(|(place, line)| {
        let row = row(line, label_column, input).and_then(|row| check(&row).map(|()| row));
        row.with_context(|| format!("{} line {}", path.display(), place + 2))
    })
    .collect()
}

fn row(line: &str, label_column: Option<usize>, input: &TensorSpec) -> Result<TrainingRow> {
    let mut label = None;
    let mut values = Vec::new();
    for (column, cell) in line.split(',').map(str::trim).enumerate() {
        if Some(column) == label_column {
            label = Some(cell.to_owned());
            continue;
        }
        let number = if cell.is_empty() { Ok(f64::NAN) } else { cell.parse::<f64>() };
        values.push(number.with_context(|| format!("column {}: {cell:?} is not a number", column + 1))?);
    }
    let shape: Vec<usize> = input.shape.iter().map(|side| usize::try_from(*side).unwrap_or(1)).collect();
    let data = Data::from_f64(input.datatype, &values)
        .ok_or_else(|| anyhow!("input {:?} is {}, which CSV can't hold", input.name, input.datatype))?;
    Ok(TrainingRow { inputs: vec![Tensor::new(input.name.clone(), shape, data)?], label })
}

fn progress(rows: usize) -> ProgressBar {
    let bar = ProgressBar::new(rows as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} rows") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use inference::Datatype;

    fn input() -> TensorSpec {
        TensorSpec { name: "x".into(), datatype: Datatype::Fp32, shape: vec![-1, 3] }
    }

    #[test]
    fn a_label_that_the_release_has_not_is_refused_with_its_line() {
        let labels = ["ok", "worn"].map(str::to_owned);
        let spec = Spec {
            inputs: vec![input()],
            outputs: Vec::new(),
            pre: Vec::new(),
            post: Vec::new(),
            labels: labels.to_vec(),
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |rows: &str| {
            fs::write(file.path(), format!("a,b,c,label\n{rows}")).unwrap();
            read_labelled(file.path(), &spec).map(|rows| rows.len())
        };
        assert_eq!(read("1,2,3,ok\n\n4,5,6,worn\n").unwrap(), 2);
        for label in ["OK", "0", "", "\"ok\""] {
            let why = format!("{:#}", read(&format!("1,2,3,ok\n\n4,5,6,{label}\n")).unwrap_err());
            assert!(why.contains("line 4") && why.contains("\"ok\", \"worn\""), "{why}");
            assert!(why.contains(&format!("{label:?}")), "{why}");
        }
        // A profile counts whatever the data says.
        assert_eq!(read_rows(file.path(), &spec).unwrap().len(), 2);
    }

    #[test]
    fn a_row_is_a_batch_of_one_and_its_label() {
        let row = row("7, 1,,2.5", Some(0), &input()).unwrap();
        assert_eq!(row.label.as_deref(), Some("7"));
        assert_eq!(row.inputs[0].shape(), [1, 3]);
        let Data::Fp32(values) = row.inputs[0].data() else { panic!("wrong type") };
        assert!(values[1].is_nan());
        assert_eq!([values[0], values[2]].map(f32::to_bits), [1.0_f32, 2.5].map(f32::to_bits));
    }

    #[test]
    fn a_row_that_does_not_fit_says_so() {
        assert!(row("1,2", None, &input()).unwrap_err().to_string().contains("needs 3 values, got 2"));
        assert!(row("1,2,x", None, &input()).unwrap_err().to_string().contains("column 3"));
    }
}
