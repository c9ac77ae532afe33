//! What a manifest says twice must be the same both times: labels against scores, the monitor against the input.
//!
//! Checked when a release is made, published and fetched; not when a stored one is opened again: a release that serves
//! since before a rule was made goes on serving.

use std::collections::BTreeSet;

use crate::check::ManifestError;
use crate::manifest::{Datatype, Manifest, TensorSpec};
use crate::monitor::Monitor;
use crate::steps::ImageLayout;

type Checked = Result<(), ManifestError>;

/// Checks all of it.
pub(crate) fn check(m: &Manifest) -> Checked {
    labels(m)?;
    match &m.monitor {
        Some(monitor) => {
            m.inputs.iter().find(|i| i.name == monitor.input()).map_or(Ok(()), |input| match monitor {
                Monitor::Image { height, width, channels, layout, .. } => {
                    image(input, [("height", *height), ("width", *width), ("channels", *channels)], *layout)
                }
                Monitor::Tabular { columns, .. } => tabular(input, columns.len()),
            })
        }
        None => Ok(()),
    }
}

/// A class for each score. The scores are the first output, a row of them for each item; of outputs of another form
/// only the application knows what its labels name.
fn labels(m: &Manifest) -> Checked {
    let mut seen = BTreeSet::new();
    if let Some(twice) = m.labels.iter().find(|label| !seen.insert(*label)) {
        return Err(ManifestError::bound("labels", "without duplicates", format!("{twice:?} twice")));
    }
    let rows = m.outputs.first().filter(|output| output.datatype != Datatype::Bytes);
    let Some((output, [_, scores])) = rows.map(|output| (output, output.shape.as_slice())) else {
        return Ok(());
    };
    if m.labels.is_empty() || i64::try_from(m.labels.len()) == Ok(*scores) {
        return Ok(());
    }
    let expected = format!("{scores} names, one for each score of output {:?}, or none", output.name);
    Err(ManifestError::bound("labels", &expected, m.labels.len()))
}

fn image(input: &TensorSpec, sides: [(&str, u32); 3], layout: ImageLayout) -> Checked {
    let shown = format!("{:?} of input {:?}", input.shape, input.name);
    if input.shape.len() != 4 {
        return Err(ManifestError::bound("monitor.input", "a batch of images, with four dimensions", shown));
    }
    let places = layout.places();
    match sides.into_iter().zip(places).find(|((_, side), place)| input.shape[*place] != i64::from(*side)) {
        Some(((key, side), place)) => {
            let expected = format!("{} as in shape {shown}", input.shape[place]);
            Err(ManifestError::bound(&format!("monitor.{key}"), &expected, side))
        }
        None => Ok(()),
    }
}

fn tabular(input: &TensorSpec, columns: usize) -> Checked {
    match input.shape.as_slice() {
        [_, width] if i64::try_from(columns) == Ok(*width) => Ok(()),
        [_, width] => {
            let expected = format!("{width} names, one for each column of input {:?}", input.name);
            Err(ManifestError::bound("monitor.columns", &expected, columns))
        }
        shape => {
            let shown = format!("{shape:?} of input {:?}", input.name);
            Err(ManifestError::bound("monitor.input", "a batch of rows, with two dimensions", shown))
        }
    }
}
