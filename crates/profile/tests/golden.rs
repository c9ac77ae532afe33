//! Values that other tools give on the data in `tests/data`: Evidently 0.7.23, NannyML 0.13.1, SciPy 1.17.1.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use profile::drift::{MeasureKind, Status, Thresholds, compare_counters};
use profile::features::Extractor;
use profile::{Counters, FeatureCounts, Observed, Reference, ReferenceBuilder, stats, sturges_edges};

struct Table {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn load(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        let text = std::fs::read_to_string(path).unwrap();
        let split = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
        let mut lines = text.lines();
        Self { names: split(lines.next().unwrap()), rows: lines.map(split).collect() }
    }

    fn column(&self, name: &str) -> impl Iterator<Item = &str> {
        let at = self.names.iter().position(|n| n == name).unwrap();
        self.rows.iter().map(move |row| row[at].as_str())
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        let mut values: Vec<f64> = self.column(name).map(|v| v.parse().unwrap()).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn observed(&self) -> impl Iterator<Item = Vec<Observed<'_>>> {
        let is_text = |name: &str| name.starts_with("cat_");
        self.rows.iter().map(move |row| {
            let cells = row.iter().zip(&self.names);
            cells
                .map(
                    |(v, n)| {
                        if is_text(n) { Observed::Text(v) } else { Observed::Number(v.parse().unwrap()) }
                    },
                )
                .collect()
        })
    }
}

fn reference(table: &Table) -> Reference {
    let extractor = Extractor::Columns { input: "x".into(), names: table.names.clone() };
    let mut builder = ReferenceBuilder::new(extractor, vec![]);
    table.observed().for_each(|row| builder.add(&row));
    builder.build().unwrap()
}

fn count<'a>(reference: &Reference, rows: impl Iterator<Item = Vec<Observed<'a>>>) -> Counters {
    let mut counters = Counters::new(&reference.schema);
    rows.for_each(|row| counters.observe_row(&reference.schema, &row));
    counters
}

fn counts(counters: &Counters, reference: &Reference, name: &str) -> Vec<u64> {
    let at = reference.schema.features.iter().position(|f| f.name == name).unwrap();
    match &counters.features[at] {
        FeatureCounts::Numeric(counts) => counts.with_outside(),
        FeatureCounts::Categorical(counts) => counts.with_other(),
    }
}

fn close(got: f64, want: f64, tolerance: f64, what: &str) {
    assert!((got - want).abs() <= tolerance, "{what}: got {got}, want {want}");
}

#[test]
fn nannyml_distances_on_bins_merged_over_seven_devices() {
    let (table, current) = (Table::load("ref_big.csv"), Table::load("cur_big.csv"));
    let reference = reference(&table);
    let mut merged = Counters::new(&reference.schema);
    for device in 0..7 {
        let rows = current.observed().enumerate().filter(|(i, _)| i % 7 == device).map(|(_, row)| row);
        merged.merge(&count(&reference, rows));
    }
    let golden = [
        ("num_gauss", 0.214_581_748, 0.180_724_256, 17),
        ("num_lognorm", 0.076_320_278, 0.064_362_698, 25),
        ("num_int_many", 0.191_110_900, 0.160_094_634, 19),
        ("prob", 0.137_745_897, 0.115_239_048, 21),
        ("cat_bin", 0.042_904_622, 0.035_725_181, 2),
        ("cat_multi", 0.081_868_840, 0.068_259_486, 0),
    ];
    for (name, js, hellinger, bins) in golden {
        let (a, b) = (counts(&reference.counters, &reference, name), counts(&merged, &reference, name));
        if bins > 0 {
            assert_eq!(a.len() - 1, bins, "bins of {name}");
        }
        let (p, q) = (stats::normalise(&a), stats::normalise(&b));
        close(stats::jensen_shannon_base2(&p, &q), js, 6e-10, name);
        close(stats::hellinger(&p, &q), hellinger, 6e-10, name);
    }
}

#[test]
fn evidently_psi_and_js_on_its_own_bins() {
    let (table, current) = (Table::load("ref_big.csv"), Table::load("cur_big.csv"));
    let golden = [
        ("num_gauss", 0.260_914_903, 0.177_184_195),
        ("num_lognorm", 0.021_411_119, 0.048_378_760),
        ("num_int_many", 0.206_136_777, 0.158_754_294),
        ("prob", 0.106_483_560, 0.114_459_066),
    ];
    for (name, psi, js) in golden {
        let (r, c) = (table.numbers(name), current.numbers(name));
        let (min, max) = (r[0].min(c[0]), r[r.len() - 1].max(c[c.len() - 1]));
        let edges = sturges_edges(min, max, (r.len() + c.len()) as u64);
        let share = |values: &[f64]| {
            let mut counts = vec![0; edges.len() - 1];
            for value in values {
                counts[(edges.partition_point(|e| e <= value) - 1).min(edges.len() - 2)] += 1;
            }
            stats::normalise(&counts)
        };
        let (p, q) = (share(&r), share(&c));
        close(stats::psi_floored(&p, &q), psi, 6e-10, name);
        close(stats::jensen_shannon_natural(&p, &q), js, 6e-10, name);
    }
    let reference = reference(&table);
    let seen = count(&reference, current.observed());
    for (name, psi, js) in
        [("cat_bin", 0.010_213_020, 0.035_720_441), ("cat_multi", 0.037_384_266, 0.068_160_280)]
    {
        let known = |counters: &Counters| {
            let mut all = counts(counters, &reference, name);
            all.pop();
            stats::normalise(&all)
        };
        let (p, q) = (known(&reference.counters), known(&seen));
        close(stats::psi_floored(&p, &q), psi, 6e-10, name);
        close(stats::jensen_shannon_natural(&p, &q), js, 6e-10, name);
    }
}

#[test]
fn wasserstein_and_kolmogorov_smirnov_lie_within_their_intervals() {
    let (table, current) = (Table::load("ref_big.csv"), Table::load("cur_big.csv"));
    let reference = reference(&table);
    let seen = count(&reference, current.observed());
    let report = compare_counters(
        &reference.schema,
        &reference.counters,
        &seen,
        &reference.noise,
        &Thresholds::default(),
    );
    let golden = [
        ("num_gauss", 0.524_620_356, 0.202_116_667),
        ("num_lognorm", 0.209_687_554, 0.110_083_333),
        ("num_int_many", 0.465_522_408, 0.184_866_667),
        ("prob", 0.304_536_711, 0.135_516_667),
    ];
    for (name, wasserstein, d) in golden {
        let feature = report.features.iter().find(|f| f.feature == name).unwrap();
        let find = |kind| feature.measures.iter().find(|m| m.kind == kind).unwrap();
        close(find(MeasureKind::WassersteinPerSigma).value, wasserstein, 0.004, name);
        let interval = find(MeasureKind::Ks).interval.unwrap();
        assert!(interval.low <= d + 1e-8 && d <= interval.high + 1e-8, "{name}: {d} outside {interval:?}");
        assert!(interval.high - interval.low < 0.017, "{name}: {interval:?} is too wide");
    }
    let status = |name: &str| report.features.iter().find(|f| f.feature == name).unwrap().status;
    assert_eq!(status("num_gauss"), Status::Drifted);
    assert_eq!(status("cat_bin"), Status::Stable, "certain, but below the distance that matters");
}

#[test]
fn chi_square_of_nannyml_and_of_evidently() {
    let tables = |size: &str, name: &str| {
        let (table, current) =
            (Table::load(&format!("ref_{size}.csv")), Table::load(&format!("cur_{size}.csv")));
        let reference = reference(&table);
        let seen = count(&reference, current.observed());
        (counts(&reference.counters, &reference, name), counts(&seen, &reference, name))
    };
    for (name, statistic) in [("cat_bin", 13.965_777_777_777_777), ("cat_multi", 9.615_602_147_507_232)] {
        let (a, b) = tables("small", name);
        close(stats::chi_square_two_sample(&a, &b).unwrap().statistic, statistic, 1e-10, name);
    }
    // Evidently's p is SciPy's; whylogs cuts expected counts to whole numbers and gets 119.82 and 506.51.
    for (name, statistic, p) in [
        ("cat_bin", 119.730_985_845_051_78, 7.244_844_8e-28),
        ("cat_multi", 504.963_451_820_941_3, 6.774_324_1e-107),
    ] {
        let (a, b) = tables("big", name);
        let result = stats::chi_square_vs_expected(&a, &b).unwrap();
        close(result.statistic, statistic, 1e-9, name);
        close(result.p / p, 1.0, 1e-6, name);
    }
    let (a, b) = tables("small", "cat_multi");
    close(stats::chi_square_vs_expected(&a, &b).unwrap().p, 1.575_296e-3, 1e-9, "cat_multi");
}

#[test]
fn default_tests_of_evidently_on_small_samples() {
    let (table, current) = (Table::load("ref_small.csv"), Table::load("cur_small.csv"));
    for (name, p) in [("num_gauss", 3.678_409e-12), ("num_lognorm", 7.612_389e-4)] {
        let (r, c) = (table.numbers(name), current.numbers(name));
        let d = stats::ks_statistic(&r, &c).unwrap();
        let got = stats::ks_exact_p(d, r.len(), c.len());
        close(got / p, 1.0, 1e-6, name);
    }
    let share = |table: &Table| {
        let values: Vec<&str> = table.column("cat_bin").collect();
        (values.iter().filter(|v| **v == "a").count() as u64, values.len() as u64)
    };
    let z = stats::proportions(share(&table), share(&current), 0.95).unwrap();
    close(z.p / 1.489_229e-4, 1.0, 1e-6, "z-test");
    let few = |table: &Table| {
        let values = table.numbers("num_int_few");
        let mut distinct = values.clone();
        distinct.dedup();
        distinct
            .iter()
            .map(|d| values.iter().filter(|v| v.total_cmp(d).is_eq()).count() as u64)
            .collect::<Vec<_>>()
    };
    close(
        stats::chi_square_vs_expected(&few(&table), &few(&current)).unwrap().p,
        6.151_623e-5,
        1e-10,
        "num_int_few",
    );
}
