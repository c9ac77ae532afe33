//! Makes a reference from training rows: fixes the edges, then counts all rows on them.

use crate::counters::{Counters, FeatureCounts, Observed};
use crate::features::Extractor;
use crate::output::top_class;
use crate::reference::{
    FORMAT_VERSION, FeatureKind, FeatureSpec, MAX_CATEGORIES, Noise, NumericSpec, OutputSpec, Reference,
    ReferenceError, Schema,
};
use crate::stats::{jensen_shannon_base2, normalise};

/// Windows into which the training rows are cut to learn how much a distance varies without drift.
const CHUNKS: usize = 10;

struct Row {
    features: Vec<Cell>,
    output: Output,
    actual: Option<usize>,
}

enum Cell {
    Number(f64),
    Text(String),
    Missing,
    WrongType,
}

enum Output {
    Probabilities(Vec<f64>),
    Value(f64),
    Nothing,
}

/// Makes a [`Reference`] from training rows. Keeps all rows in memory: for the publisher, not for devices.
pub struct ReferenceBuilder {
    names: Vec<String>,
    extractor: Extractor,
    labels: Vec<String>,
    exports_extremes: bool,
    rows: Vec<Row>,
}

impl ReferenceBuilder {
    /// Features are named by the extractor; `labels` are the classes, empty if the model is no classifier.
    pub fn new(extractor: Extractor, labels: Vec<String>) -> Self {
        Self { names: extractor.names(), extractor, labels, exports_extremes: false, rows: Vec::new() }
    }

    /// Lets minima and maxima of features leave the devices.
    #[must_use]
    pub fn exporting_extremes(mut self) -> Self {
        self.exports_extremes = true;
        self
    }

    /// Adds a row of a classifier. `actual`: its true class, where it is known.
    pub fn add_classified(&mut self, row: &[Observed<'_>], probabilities: &[f64], actual: Option<usize>) {
        let output = Output::Probabilities(probabilities.to_vec());
        self.rows.push(Row { features: own(row), output, actual });
    }

    /// Adds a row of a regression.
    pub fn add_valued(&mut self, row: &[Observed<'_>], value: f64) {
        self.rows.push(Row { features: own(row), output: Output::Value(value), actual: None });
    }

    /// Adds a row whose output is not profiled.
    pub fn add(&mut self, row: &[Observed<'_>]) {
        self.rows.push(Row { features: own(row), output: Output::Nothing, actual: None });
    }

    /// Fixes the edges and counts all rows on them.
    ///
    /// # Errors
    /// [`ReferenceError::Empty`] without rows; [`ReferenceError::Bound`] if the rows cannot make a sound reference.
    pub fn build(self) -> Result<Reference, ReferenceError> {
        if self.rows.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let schema = self.schema();
        let counters = count(&schema, &self.rows);
        if let Some(why) = schema.fault().or_else(|| counters.fault(&schema)) {
            return Err(ReferenceError::Bound { why });
        }
        let noise = noise(&schema, &self.rows, &counters);
        Ok(Reference { v: FORMAT_VERSION, extractor: self.extractor, schema, counters, noise })
    }

    fn schema(&self) -> Schema {
        let features = self.names.iter().enumerate();
        let features =
            features.map(|(i, name)| FeatureSpec { name: name.clone(), kind: self.kind(i) }).collect();
        let values: Vec<f64> = self
            .rows
            .iter()
            .filter_map(|row| match row.output {
                Output::Value(value) => Some(value),
                Output::Probabilities(_) | Output::Nothing => None,
            })
            .collect();
        let output = if !self.labels.is_empty() {
            OutputSpec::Classes { labels: self.labels.clone() }
        } else if values.is_empty() {
            OutputSpec::Nothing
        } else {
            OutputSpec::Value { spec: NumericSpec::of(&values, self.exports_extremes) }
        };
        Schema { features, output }
    }

    fn kind(&self, feature: usize) -> FeatureKind {
        let cells = || self.rows.iter().filter_map(move |row| row.features.get(feature));
        let mut counts = std::collections::BTreeMap::<&str, usize>::new();
        for cell in cells() {
            if let Cell::Text(text) = cell {
                *counts.entry(text.as_str()).or_default() += 1;
            }
        }
        if counts.is_empty() {
            let values: Vec<f64> =
                cells().filter_map(|cell| if let Cell::Number(v) = cell { Some(*v) } else { None }).collect();
            return FeatureKind::Numeric(NumericSpec::of(&values, self.exports_extremes));
        }
        let mut frequent: Vec<(&str, usize)> = counts.into_iter().collect();
        frequent.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let mut categories: Vec<String> =
            frequent.into_iter().take(MAX_CATEGORIES).map(|(text, _)| text.to_owned()).collect();
        categories.sort();
        FeatureKind::Categorical { categories }
    }
}

fn own(row: &[Observed<'_>]) -> Vec<Cell> {
    row.iter()
        .map(|value| match value {
            Observed::Number(value) => Cell::Number(*value),
            Observed::Text(text) => Cell::Text((*text).to_owned()),
            Observed::Missing => Cell::Missing,
            Observed::WrongType => Cell::WrongType,
        })
        .collect()
}

fn borrow(cells: &[Cell]) -> Vec<Observed<'_>> {
    cells
        .iter()
        .map(|cell| match cell {
            Cell::Number(value) => Observed::Number(*value),
            Cell::Text(text) => Observed::Text(text),
            Cell::Missing => Observed::Missing,
            Cell::WrongType => Observed::WrongType,
        })
        .collect()
}

fn count(schema: &Schema, rows: &[Row]) -> Counters {
    let mut counters = Counters::new(schema);
    for row in rows {
        counters.observe_row(schema, &borrow(&row.features));
        match &row.output {
            Output::Probabilities(probabilities) => {
                counters.observe_probabilities(schema, probabilities);
                if let (Some(actual), Some(predicted)) = (row.actual, top_class(probabilities)) {
                    counters.observe_label(schema, predicted, Some(actual), 0.0);
                }
            }
            Output::Value(value) => counters.observe_value(schema, *value),
            Output::Nothing => {}
        }
    }
    counters
}

fn noise(schema: &Schema, rows: &[Row], whole: &Counters) -> Vec<Noise> {
    let window_rows = rows.len().div_ceil(CHUNKS);
    let windows: Vec<Counters> = rows.chunks(window_rows).map(|chunk| count(schema, chunk)).collect();
    let distances = |feature: usize| -> Vec<f64> {
        let bins = |counters: &Counters| match &counters.features[feature] {
            FeatureCounts::Numeric(counts) => normalise(&counts.with_outside()),
            FeatureCounts::Categorical(counts) => normalise(&counts.with_other()),
        };
        let reference = bins(whole);
        windows.iter().map(|window| jensen_shannon_base2(&reference, &bins(window))).collect()
    };
    (0..schema.features.len())
        .map(|feature| {
            let distances = distances(feature);
            let n = distances.len() as f64;
            let mean = distances.iter().sum::<f64>() / n;
            let variance = distances.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / n;
            Noise { window_rows: window_rows as u64, js_base2_mean: mean, js_base2_std: variance.sqrt() }
        })
        .collect()
}
