//! The figures for people.

use serde_json::Value;

/// What the lines of the main table show.
const LINES: [(&str, &str); 12] = [
    ("ours, int8", "ours_int8_ms"),
    ("ours, f32", "ours_f32_ms"),
    ("tract, int8", "tract_int8_ms"),
    ("tract, f32", "tract_f32_ms"),
    ("ONNX Runtime, int8", "ort_int8_ms"),
    ("ONNX Runtime, f32", "ort_f32_ms"),
    ("OpenVINO, int8", "openvino_int8_ms"),
    ("OpenVINO, f32", "openvino_f32_ms"),
    ("limit at the peak", "limit_ms"),
    ("ours: load, ms", "load_ms"),
    ("ours: memory, MiB", "loaded_mib"),
    ("file, MiB", "file_mib"),
];

/// Everything, in milliseconds unless the line says otherwise.
pub(super) fn render(said: &Value) -> String {
    let mut text = format!("{}\n", said["cpu"].as_str().unwrap_or_default());
    text += &section("all features, ms", said);
    for (name, key) in [("without the tile multiplier, ms", "avx512_vnni"), ("AVX2 only, ms", "avx2")] {
        if said.get(key).is_some() {
            text += &section(name, &said[key]);
        }
    }
    if let Some(arm) = said.get("aarch64") {
        text += &arm_section(arm);
    }
    let notes = said["notes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    text + &notes.map(|note| ["note: ", note, "\n"].concat()).collect::<String>()
}

fn section(title: &str, said: &Value) -> String {
    let Some(models) = said["models"].as_object() else { return String::new() };
    let mut text = format!("\npeak {} GMAC/s\n", said["peak_int8_gmac_s"]);
    text += &line(title, models.keys().cloned());
    for (name, key) in LINES {
        if models.values().any(|row| row.get(key).is_some()) {
            text += &line(name, models.values().map(|row| cell(&row[key])));
        }
    }
    text += &line("ours / the faster other", models.values().map(|row| cell(&against_others(row))));
    text += &line(
        "tract f32 / ours",
        models.values().map(|row| cell(&ratio(&row["tract_f32_ms"], &row["ours_int8_ms"]))),
    );
    text + &line(
        "share of the peak",
        models.values().map(|row| cell(&ratio(&row["limit_ms"], &row["ours_int8_ms"]))),
    )
}

fn arm_section(arm: &Value) -> String {
    let Some(models) = arm["models"].as_object() else { return String::new() };
    let mut text = "\n".to_owned() + &line("aarch64, M instructions", models.keys().cloned());
    let keys = models.values().next().and_then(Value::as_object).into_iter().flat_map(serde_json::Map::keys);
    for key in keys {
        text += &line(key, models.values().map(|row| cell(&row[key])));
    }
    text
}

/// Our int8 time as a share of the faster other engine's.
fn against_others(row: &Value) -> Value {
    let others = ["ort_int8_ms", "openvino_int8_ms"].iter().filter_map(|key| row[key].as_f64());
    let best = others.min_by(f64::total_cmp);
    best.map_or(Value::Null, |best| ratio(&row["ours_int8_ms"], &best.into()))
}

fn ratio(a: &Value, b: &Value) -> Value {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) if b > 0.0 => (a / b).into(),
        _ => Value::Null,
    }
}

fn cell(value: &Value) -> String {
    match value.as_f64() {
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) if value >= 0.1 => format!("{value:.2}"),
        Some(value) => format!("{value:.4}"),
        None => "-".into(),
    }
}

fn line(name: &str, cells: impl Iterator<Item = String>) -> String {
    let mut line = format!("{name:<26}");
    for cell in cells {
        line.extend(std::iter::repeat_n(' ', 14_usize.saturating_sub(cell.chars().count())));
        line.push_str(&cell);
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{against_others, cell};

    #[test]
    fn the_faster_other_engine_counts() {
        let row = json!({ "ours_int8_ms": 2.0, "ort_int8_ms": 4.0, "openvino_int8_ms": 2.5 });
        assert_eq!(against_others(&row), json!(0.8));
    }

    #[test]
    fn an_engine_that_gave_nothing_doesnt_count() {
        let row = json!({ "ours_int8_ms": 2.0, "ort_int8_ms": null, "openvino_int8_ms": 2.5 });
        assert_eq!(against_others(&row), json!(0.8));
        assert_eq!(cell(&against_others(&json!({}))), "-");
    }
}
