//! Where our time goes: each step of a net's int8 program, with its share of the core's peak.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::engine::{Engine, Maker, Programs};
use super::models::Models;

/// Inferences whose medians count.
const RUNS: u32 = 101;

/// The steps of one net: what, multiply-accumulates, milliseconds, GMAC/s and share of the peak.
///
/// # Errors
/// When our engine fails.
pub(super) fn measure(net: &str, programs: &Programs, models: &Models) -> Result<Value> {
    let mut engine = Engine::start(programs, models, (Maker::Ours, net, "int8"), &[])?;
    let about = engine.ask("about")?;
    engine.ask("load")?;
    let peaks = Engine::start_peak(programs)?.ask("peak")?;
    let peak = peak_of(&about, &peaks);
    let mut said = engine.ask(&format!("profile {RUNS}"))?;
    for step in said["steps"].as_array_mut().context("the engine gave no steps")? {
        let (ms, macs) = (step["ms"].as_f64().unwrap_or_default(), step["macs"].as_f64().unwrap_or_default());
        let speed = (ms > 0.0).then(|| macs / ms / 1e6);
        step["gmac_s"] = json!(speed);
        step["share_of_peak"] = json!(speed.zip(peak).map(|(speed, peak)| speed / peak));
    }
    said["level"] = about["level"].clone();
    said["peak_int8_gmac_s"] = json!(peak);
    Ok(said)
}

/// The peak of the instruction that the level's kernels are made of; none for levels without one.
fn peak_of(about: &Value, peaks: &Value) -> Option<f64> {
    peaks[about["level"].as_str()?].as_f64()
}

/// For people, in order of the run.
pub(super) fn render(net: &str, said: &Value) -> String {
    let steps = || said["steps"].as_array().into_iter().flatten();
    let total: f64 = steps().filter_map(|step| step["ms"].as_f64()).sum();
    let level = said["level"].as_str().unwrap_or_default();
    let mut lines = vec![format!("{net}, {level} kernels: {total:.3} ms in {} steps", steps().count())];
    lines.push(format!("{:>9} {:>7} {:>8} {:>7}  step", "ms", "of all", "GMAC/s", "of peak"));
    for step in steps() {
        let number = |key: &str| step[key].as_f64().unwrap_or_default();
        let ms = number("ms");
        let share = step["share_of_peak"].as_f64();
        let share = share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", 100.0 * share));
        let of_all = if total > 0.0 { 100.0 * ms / total } else { 0.0 };
        let what = step["what"].as_str().unwrap_or_default();
        lines.push(format!("{ms:9.4} {of_all:6.1}% {:8.1} {share:>7}  {what}", number("gmac_s")));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{peak_of, render};

    #[test]
    fn a_steps_share_is_that_of_the_peak_of_the_level_that_ran() {
        let peaks = json!({ "amx": 3300.0, "avx512-vnni": 480.0, "avx2": 80.0 });
        for (level, want) in [("amx", Some(3300.0)), ("avx2", Some(80.0)), ("portable", None)] {
            assert_eq!(peak_of(&json!({ "level": level }), &peaks), want);
        }
    }

    #[test]
    fn a_level_without_a_peak_has_no_share() {
        let step = json!({ "what": "linear", "ms": 1.0, "gmac_s": 2.0, "share_of_peak": null });
        let text = render("net", &json!({ "level": "portable", "steps": [step] }));
        assert!(text.lines().nth(2).is_some_and(|line| line.ends_with("2.0       -  linear")), "{text}");
    }
}
