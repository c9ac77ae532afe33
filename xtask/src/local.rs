//! Files, a watched folder and a local broker: what applications without HTTP have, on a real agent that serves digits
//! 1.0.0, with Debian's mosquitto as the broker.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use testkit::feeder::{Image, read_images};
use testkit::rig::{Process, free_port, wait_until};

use crate::builds;
use crate::demo::example;
use crate::run::{output, program};
use crate::serving::{self, Serving};
use crate::tools;

mod burst;

const TOPICS: [&str; 2] = ["digits/in", "digits/out"];
const LIMIT: Duration = Duration::from_secs(30);
/// Images that are asked in each way.
const IMAGES: usize = 12;
/// Largest message that the broker takes: a request of a hundred images, not the answer.
const MAX_PACKET: usize = 16_000;

pub(crate) fn main() -> Result<()> {
    tools::ensure(&tools::MOSQUITTO)?;
    tools::ensure(&tools::MOSQUITTO_CLIENTS)?;
    let folder = serving::folder("local-inputs")?;
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let watched = folder.join("watched");
    fs::create_dir_all(&watched)?;
    let port = free_port()?;
    let config = folder.join("mosquitto.conf");
    fs::write(
        &config,
        format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_packet_size {MAX_PACKET}\n"),
    )?;
    let args = ["-c".to_owned(), config.display().to_string()];
    let _broker =
        Process::start("mosquitto", Path::new("mosquitto"), args, &[], &folder.join("mosquitto.log"))?;
    let set = |key: &str, value: String| (format!("FLOTILLA_{key}"), value);
    let env = vec![
        set("FOLDER_WATCH", watched.display().to_string()),
        set("FOLDER_MODEL", "digits".into()),
        set("FOLDER_EVERY_MS", "100".into()),
        set("MQTT_BROKER", format!("127.0.0.1:{port}")),
        set("MQTT_MODEL", "digits".into()),
        set("MQTT_TOPIC_IN", TOPICS[0].into()),
        set("MQTT_TOPIC_OUT", TOPICS[1].into()),
    ];
    let binaries = builds::binaries()?;
    let serving = Serving::start(&binaries, "local-test", env)?;
    let mut images = read_images(&example("data/held_out.csv"))?;
    images.truncate(IMAGES);
    watch(&watched, &images)?;
    println!("  ok  requests and pictures put into the watched folder are answered and taken away");
    let place = ["-h".to_owned(), "127.0.0.1".into(), "-p".into(), port.to_string()];
    broker(&place, &images)?;
    println!("  ok  messages on the local broker are answered");
    burst::play(&place, &serving.agent, &images, &folder)?;
    println!("  ok  1000 messages at once are each answered once, and none is lost");
    let config = serving.agent.folder().join("agent.toml");
    drop(serving);
    let batch = Batch { agent: binaries.agent, config, folder };
    batch.table()?;
    batch.lines(&images)?;
    batch.pictures(&images)?;
    println!("  ok  run-batch answers CSV, JSONL and pictures with no server and no agent running");
    Ok(())
}

fn request(image: &Image) -> String {
    let input = json!({ "name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": image.pixels });
    json!({ "inputs": [input] }).to_string()
}

/// The digit that an answer of the protocol says.
fn digit(answer: &Value) -> Result<usize> {
    let scores = answer["outputs"][0]["data"].as_array().with_context(|| format!("no answer: {answer}"))?;
    ensure!(answer["model_version"] == "1.0.0" && scores.len() == 10, "not digits 1.0.0: {answer}");
    let score = |place: &usize| scores[*place].as_f64().unwrap_or(-1.0);
    (0..10).max_by(|a, b| score(a).total_cmp(&score(b))).context("ten scores")
}

/// Nine of ten must be right: the model is no better.
fn ensure_right(right: usize, of: usize) -> Result<()> {
    ensure!(right * 10 >= of * 9, "only {right} of {of} are right");
    Ok(())
}

/// A picture as a camera's program would store it; the values stand for 0 to 16.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "pixels are 0 to 16")]
fn write_picture(path: &Path, image: &Image) -> Result<()> {
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), 8, 8);
    encoder.set_color(png::ColorType::Grayscale);
    let pixels: Vec<u8> = image.pixels.iter().map(|pixel| *pixel as u8).collect();
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(())
}

fn watch(watched: &Path, images: &[Image]) -> Result<()> {
    for (number, image) in images.iter().enumerate() {
        match number % 2 {
            0 => fs::write(watched.join(format!("{number}.json")), request(image))?,
            _ => write_picture(&watched.join(format!("{number}.png")), image)?,
        }
    }
    fs::write(watched.join("broken.json"), "{")?;
    fs::write(watched.join("broken.png"), "no picture")?;
    let answer = |name: &str| {
        wait_until(&format!("the answer to {name}"), LIMIT, || {
            let text = fs::read_to_string(watched.join("out").join(format!("{name}.json"))).ok();
            text.map(|text| serde_json::from_str::<Value>(&text).context("an answer is JSON")).transpose()
        })
    };
    let mut right = 0;
    for (number, image) in images.iter().enumerate() {
        let ending = if number % 2 == 0 { "json" } else { "png" };
        right += usize::from(digit(&answer(&format!("{number}.{ending}"))?)? == usize::from(image.label));
    }
    ensure_right(right, images.len())?;
    for (name, words) in [("broken.json", "not valid JSON"), ("broken.png", "neither a PNG nor a JPEG")] {
        let refusal = answer(name)?;
        ensure!(refusal["error"].as_str().is_some_and(|error| error.contains(words)), "{name}: {refusal}");
        let kept = watched.join("out").join(format!("{name}.refused"));
        wait_until(&format!("{name} kept"), LIMIT, || Ok(kept.exists().then_some(())))?;
    }
    wait_until("an empty watched folder", LIMIT, || {
        let files = fs::read_dir(watched)?.flatten().filter(|entry| entry.path().is_file());
        Ok((files.count() == 0).then_some(()))
    })
}

fn broker(place: &[String], images: &[Image]) -> Result<()> {
    let publish = |message: &str| {
        output(program("mosquitto_pub").args(place).args(["-q", "1", "-t", TOPICS[0], "-m", message]))
    };
    let heard = |message: &str| -> Result<Value> {
        let mut hear = program("mosquitto_sub");
        hear.args(place).args(["-q", "1", "-t", TOPICS[1], "-C", "1", "-W", "30"]);
        let mut hearing = hear.stdout(Stdio::piped()).spawn().context("cannot start mosquitto_sub")?;
        // Said again until it is heard: nobody says when the listener has subscribed.
        wait_until("an answer on the local broker", LIMIT, || {
            publish(message)?;
            std::thread::sleep(Duration::from_millis(200));
            Ok(hearing.try_wait()?)
        })?;
        let output = hearing.wait_with_output()?;
        serde_json::from_slice(&output.stdout).context("an answer on the local broker is JSON")
    };
    let mut right = 0;
    for image in images.iter().take(4) {
        right += usize::from(digit(&heard(&request(image))?)? == usize::from(image.label));
        // What was said more than once is still being answered.
        std::thread::sleep(Duration::from_millis(500));
    }
    ensure!(right >= 3, "only {right} of 4 are right");
    let refusal = heard("{}")?;
    ensure!(refusal["error"].as_str().is_some_and(|error| error.contains("inputs")), "{refusal}");
    let images = vec![0; 100 * 64];
    let input = json!({ "name": "image", "datatype": "FP32", "shape": [100, 1, 8, 8], "data": images });
    let output = json!({ "name": "scores", "parameters": { "classification": 10 } });
    let asked = json!({ "id": "hundred", "inputs": [input], "outputs": [output] });
    let refusal = heard(&asked.to_string())?;
    let is_told = refusal["error"].as_str().is_some_and(|error| error.contains("at most 16000"));
    ensure!(
        is_told && refusal["id"] == "hundred",
        "an answer over the broker's bound: {:.300}",
        refusal.to_string()
    );
    Ok(())
}

/// `flotilla-agent run-batch` on the state that the agent has left.
struct Batch {
    agent: PathBuf,
    config: PathBuf,
    folder: PathBuf,
}

impl Batch {
    fn run(&self, input: &Path, more: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.agent);
        command.arg("run-batch").arg("--config").arg(&self.config).arg("--input").arg(input).args(more);
        command.output().context("cannot start flotilla-agent")
    }

    fn table(&self) -> Result<()> {
        let input = example("data/held_out.csv");
        let out = self.folder.join("out.csv");
        let ran = self.run(&input, &["--label", "label", "--output", &out.display().to_string()])?;
        ensure!(ran.status.success(), "run-batch failed: {}", String::from_utf8_lossy(&ran.stderr));
        let text = fs::read_to_string(&out)?;
        let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
        let expected = fs::read_to_string(&input)?.lines().count() - 1;
        ensure!(rows.len() == expected, "{} rows of {expected}", rows.len());
        ensure_right(rows.iter().filter(|row| row[1] == row[2]).count(), rows.len())
    }

    fn lines(&self, images: &[Image]) -> Result<()> {
        let input = self.folder.join("requests.jsonl");
        let lines: Vec<String> = images.iter().map(request).chain(["{}".to_owned()]).collect();
        fs::write(&input, lines.join("\n"))?;
        let ran = self.run(&input, &[])?;
        ensure!(ran.status.code() == Some(65), "a refused line must be told by the exit code: {ran:?}");
        let answers = answers(&ran)?;
        let (good, bad) = answers.split_at(images.len());
        ensure_right(right(good, images), images.len())?;
        ensure!(bad.len() == 1 && bad[0]["error"].is_string(), "the last line must be refused: {bad:?}");
        Ok(())
    }

    fn pictures(&self, images: &[Image]) -> Result<()> {
        let input = self.folder.join("pictures");
        fs::create_dir_all(&input)?;
        for (number, image) in images.iter().enumerate() {
            write_picture(&input.join(format!("{number:03}.png")), image)?;
        }
        let ran = self.run(&input, &[])?;
        ensure!(ran.status.success(), "run-batch failed: {}", String::from_utf8_lossy(&ran.stderr));
        ensure_right(right(&answers(&ran)?, images), images.len())
    }
}

fn answers(ran: &Output) -> Result<Vec<Value>> {
    let text = String::from_utf8_lossy(&ran.stdout);
    let parsed: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    match parsed {
        Ok(answers) if !answers.is_empty() => Ok(answers),
        _ => bail!("run-batch printed no JSONL: {text}{}", String::from_utf8_lossy(&ran.stderr)),
    }
}

fn right(answers: &[Value], images: &[Image]) -> usize {
    let is_right =
        |(answer, image): &(&Value, &Image)| answer["class"].as_str() == Some(&image.label.to_string());
    answers.iter().zip(images).filter(is_right).count()
}
