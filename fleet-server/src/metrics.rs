//! Counters of this process for Prometheus; numbers from the database are read when they are asked for.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Labels = String;

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: &'static str,
    series: BTreeMap<Labels, Arc<AtomicU64>>,
}

/// All counters and gauges. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    families: Arc<Mutex<BTreeMap<&'static str, Family>>>,
}

/// One number. Keep it: finding it by name takes a lock.
#[derive(Debug, Clone)]
pub struct Number(Arc<AtomicU64>);

impl Number {
    /// Adds.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Sets; for gauges.
    pub fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }
}

impl Metrics {
    /// A number that only rises; its name ends in `_total`.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Number {
        self.number(name, help, "counter", labels)
    }

    /// A number that rises and falls.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Number {
        self.number(name, help, "gauge", labels)
    }

    fn number(
        &self,
        name: &'static str,
        help: &'static str,
        kind: &'static str,
        labels: &[(&str, &str)],
    ) -> Number {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(name).or_insert_with(|| Family { help, kind, series: BTreeMap::new() });
        Number(family.series.entry(written(labels)).or_default().clone())
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (name, Family { help, kind, series }) in families.iter() {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, number) in series {
                let _ = writeln!(text, "{name}{labels} {}", number.load(Ordering::Relaxed));
            }
        }
        text
    }
}

fn written(labels: &[(&str, &str)]) -> Labels {
    if labels.is_empty() {
        return String::new();
    }
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn the_text_format_is_prometheus() {
        let metrics = Metrics::default();
        metrics.counter("a_total", "All a.", &[("kind", "x\"y")]).add(2);
        metrics.counter("a_total", "All a.", &[("kind", "x\"y")]).add(1);
        metrics.gauge("b", "Now b.", &[]).set(7);
        let expected = "# HELP a_total All a.\n# TYPE a_total counter\na_total{kind=\"x\\\"y\"} 3\n\
                        # HELP b Now b.\n# TYPE b gauge\nb 7\n";
        assert_eq!(metrics.render(), expected);
    }
}
