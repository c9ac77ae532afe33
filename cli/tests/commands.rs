//! The command line as people and scripts meet it: help texts, what works without a server, named errors.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

fn flotilla(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flotilla"));
    command.args(args).env_clear().env("HOME", home).env("XDG_CONFIG_HOME", home);
    command.output().unwrap()
}

fn succeed(home: &Path, args: &[&str]) -> String {
    let output = flotilla(home, args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "flotilla {}: {said}", args.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code and what was said on stderr; stdout must be empty.
fn fail(home: &Path, args: &[&str]) -> (i32, String) {
    let output = flotilla(home, args);
    assert!(output.stdout.is_empty(), "results go to stdout only when there are any");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn digits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits")
}

/// A copy of a digits release in which every file of the spec is there.
fn digits_copy(version: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(version);
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(digits().join(version)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    if !folder.join("reference.json").exists() {
        let spec = folder.join("release.toml").display().to_string();
        let data = digits().join("data/reference.csv").display().to_string();
        succeed(home.path(), &["reference", "build", &spec, "--data", &data]);
    }
    home
}

#[test]
fn help_of_every_command_is_as_written() {
    let home = tempfile::tempdir().unwrap();
    let commands: [&[&str]; 19] = [
        &[],
        &["login"],
        &["keys"],
        &["keys", "init"],
        &["keys", "passphrase"],
        &["sign"],
        &["release"],
        &["release", "build"],
        &["release", "inspect"],
        &["reference", "build"],
        &["device"],
        &["device", "token"],
        &["rollout"],
        &["rollout", "create"],
        &["samples", "download"],
        &["user"],
        &["user", "create"],
        &["user", "set"],
        &["user", "password"],
    ];
    let mut all = String::new();
    for command in commands {
        let help = succeed(home.path(), &[command, &["--help"]].concat());
        all.extend(["=== flotilla ", &command.join(" "), "\n", &help, "\n"]);
    }
    insta::assert_snapshot!(all);
}

#[test]
fn completions_are_printed_for_every_shell() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(succeed(home.path(), &["completions", shell]).contains("rollout"), "{shell}");
    }
}

#[test]
fn digits_release_is_built_without_a_server_and_inspected() {
    let home = digits_copy("1.0.0");
    let spec = home.path().join("1.0.0/release.toml").display().to_string();
    let out = home.path().join("out/1.0.0").display().to_string();
    let time = "2026-01-31T12:00:00Z";
    let build = ["release", "build", &spec, "--out", &out, "--created", time, "--json"];
    let first: Value = serde_json::from_str(&succeed(home.path(), &build)).unwrap();
    assert_eq!(first["variants"].as_array().unwrap().len(), 3);
    assert_eq!(first["variants"][0]["samples"], 16);
    let again: Value = serde_json::from_str(&succeed(home.path(), &build)).unwrap();
    assert_eq!(first["digest"], again["digest"], "the same input makes the same release");
    let seen = succeed(home.path(), &["release", "inspect", &out]);
    assert!(seen.contains("int8") && seen.contains("not signed") && seen.contains("Latency"), "{seen}");
    let blob = std::fs::read_dir(Path::new(&out).join("blobs")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&blob, b"swapped").unwrap();
    let (code, said) = fail(home.path(), &["release", "inspect", &out]);
    assert!(code == 1 && said.contains("was changed after the build"), "{said}");
}

#[test]
fn what_was_measured_becomes_part_of_the_card() {
    let home = digits_copy("1.0.0");
    let folder = home.path().join("1.0.0");
    let spec = folder.join("release.toml").display().to_string();
    let data = digits().join("data/held_out.csv").display().to_string();
    let class = "cam-7";
    let inspect = ["release", "inspect", &spec, "--data", &data, "--class", class, "--store", "--json"];
    let seen: Value = serde_json::from_str(&succeed(home.path(), &inspect)).unwrap();
    let variants = seen["measured"][class]["variants"].as_array().unwrap();
    assert_eq!(variants.len(), 3);
    for variant in variants {
        assert_eq!(variant["measured_accuracy"]["rows"], 500, "{variant}");
        assert_eq!(variant["golden"]["passed"], 16, "{variant}");
        let (claimed, measured) = (&variant["claimed_accuracy"], &variant["measured_accuracy"]["share"]);
        assert!((claimed.as_f64().unwrap() - measured.as_f64().unwrap()).abs() < 0.0021, "{variant}");
        assert!(variant["latency_us"]["p50"].as_u64() <= variant["latency_us"]["p99"].as_u64(), "{variant}");
        assert!(variant["peak_memory_bytes"].as_u64() >= variant["loaded_bytes"].as_u64(), "{variant}");
        assert!(variant["loaded_bytes"].as_u64() >= variant["runs"]["weight_bytes"].as_u64(), "{variant}");
    }
    let f32 = variants.iter().find(|variant| variant["variant"] == "f32").unwrap();
    // conv 3x3 1->16 and 16->32 on 8x8, depthwise and pointwise 32 on 4x4, 512x10.
    assert_eq!(f32["macs"], 64 * (9 * 16 + 9 * 16 * 32) + 16 * (9 * 32 + 32 * 32) + 5120);
    assert_eq!(f32["parameters"], 160 + 4640 + 320 + 1056 + 5130);
    let card = built_card(home.path(), &spec).1;
    assert!(card.contains("### Latency") && card.contains("| cam-7 | int8 |"), "{card}");

    // Another model under the name of one that was measured.
    std::fs::copy(folder.join("f32.onnx"), folder.join("f16.onnx")).unwrap();
    let (said, card) = built_card(home.path(), &spec);
    assert!(said.contains("measured/cam-7.json, variant f16: measured with another model file"), "{said}");
    assert!(!said.contains("variant int8: measured with"), "{said}");
    assert!(card.contains("| cam-7 | int8 |") && !card.contains("| cam-7 | f16 |"), "{card}");
}

/// Builds; what was said on stderr, and the card that the release has.
fn built_card(home: &Path, spec: &str) -> (String, String) {
    let out = home.join("out").display().to_string();
    let output = flotilla(home, &["release", "build", spec, "--out", &out]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let blobs = std::fs::read_dir(Path::new(&out).join("blobs")).unwrap();
    let texts = blobs.filter_map(|blob| std::fs::read_to_string(blob.unwrap().path()).ok());
    (said, texts.into_iter().find(|text| text.starts_with("# digits 1.0.0")).unwrap())
}

#[test]
fn inspecting_refuses_what_cannot_load_and_names_the_operator() {
    let home = digits_copy("1.0.0");
    let folder = home.path().join("1.0.0");
    let spec = folder.join("release.toml").display().to_string();
    let mut onnx = std::fs::read(folder.join("f16.onnx")).unwrap();
    let place = onnx.windows(7).position(|bytes| bytes == b"MaxPool").unwrap();
    onnx[place..place + 7].copy_from_slice(b"MaxPoll");
    std::fs::write(folder.join("f16.onnx"), onnx).unwrap();
    let (code, said) = fail(home.path(), &["release", "inspect", &spec]);
    assert!(
        code == 1 && said.contains("variant f16 can't be released") && said.contains("MaxPoll"),
        "{said}"
    );
    let folder = folder.display().to_string();
    let (_, said) = fail(home.path(), &["release", "inspect", &folder, "--store"]);
    assert!(said.contains("--store takes the spec"), "{said}");
    let on_device = ["release", "inspect", "digits", "1.0.0", "--on", "cam", "--data", "none.csv"];
    let (code, said) = fail(home.path(), &on_device);
    assert!(code == 2 && said.contains("--data"), "{said}");
}

/// A release to be inspected with evaluation data from a pipe, where measuring waits for whoever writes.
fn inspected_from_pipe(time_limit: &str) -> (TempDir, PathBuf, Command) {
    let home = digits_copy("1.0.0");
    let pipe = home.path().join("data.csv");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut inspect = Command::new(env!("CARGO_BIN_EXE_flotilla"));
    inspect.args(["release", "inspect"]).arg(home.path().join("1.0.0/release.toml"));
    inspect.arg("--data").arg(&pipe).args(["--time-limit", time_limit]);
    inspect.env_clear().env("HOME", home.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    (home, pipe, inspect)
}

#[test]
fn measuring_ends_with_whoever_asked_for_it() {
    let (_home, pipe, mut inspect) = inspected_from_pipe("3600");
    let mut asked = inspect.stderr(Stdio::null()).spawn().unwrap();
    // It opens for whoever writes once somebody reads.
    let mut data = std::fs::File::options().write(true).open(&pipe).unwrap();
    asked.kill().unwrap();
    asked.wait().unwrap();
    // More than fits into a pipe, so each write waits for the reader, or hears that there is none.
    let rows = vec![b'0'; 1 << 20];
    let heard = (0..64).find_map(|_| data.write_all(&rows).err());
    assert_eq!(heard.map(|error| error.kind()), Some(std::io::ErrorKind::BrokenPipe));
}

#[test]
fn measuring_takes_no_longer_than_it_may() {
    // Nobody writes.
    let (_home, _pipe, mut inspect) = inspected_from_pipe("10");
    let asked = inspect.spawn().unwrap();
    let said = String::from_utf8(asked.wait_with_output().unwrap().stderr).unwrap();
    assert!(said.contains("measuring it takes longer than the") && said.contains("--time-limit"), "{said}");
}

#[test]
fn fallback_is_found_beside_the_release() {
    let old = digits_copy("1.0.0");
    let new = digits_copy("1.1.0");
    let out = old.path().join("out");
    for (home, version) in [(&old, "1.0.0"), (&new, "1.1.0")] {
        let spec = home.path().join(version).join("release.toml").display().to_string();
        succeed(old.path(), &["release", "build", &spec, "--out", &out.join(version).display().to_string()]);
    }
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(out.join("1.1.0/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["fallback"][0]["version"], "1.0.0");
    let alone = new.path().join("alone").display().to_string();
    let spec = new.path().join("1.1.0/release.toml").display().to_string();
    let (code, said) = fail(new.path(), &["release", "build", &spec, "--out", &alone]);
    assert!(code == 77 && said.contains("fallback 1.0.0") && said.contains("not signed in"), "{code} {said}");
}

#[test]
fn wrong_golden_answers_and_broken_models_are_named() {
    let home = digits_copy("1.0.0");
    let folder = home.path().join("1.0.0");
    let spec = folder.join("release.toml").display().to_string();
    let out = home.path().join("out").display().to_string();
    std::fs::copy(digits().join("2.0.0/golden.json"), folder.join("golden.json")).unwrap();
    let (code, said) = fail(home.path(), &["release", "build", &spec, "--out", &out]);
    assert!(code == 1 && said.contains("golden samples passed"), "{said}");
    std::fs::write(folder.join("f16.onnx"), b"no onnx at all").unwrap();
    std::fs::copy(digits().join("1.0.0/golden.json"), folder.join("golden.json")).unwrap();
    let (_, said) = fail(home.path(), &["release", "build", &spec, "--out", &out]);
    assert!(said.contains("variant f16 can't be loaded"), "{said}");
    std::fs::write(folder.join("reference.json"), b"{}").unwrap();
    let (_, said) = fail(home.path(), &["release", "build", &spec, "--out", &out]);
    assert!(said.contains("reference profile is not acceptable"), "{said}");
    assert!(!Path::new(&out).join("manifest.json").exists(), "nothing that failed is called built");
}

#[test]
fn contradictions_in_a_spec_are_named_by_file_and_key() {
    let home = digits_copy("1.0.0");
    let spec = home.path().join("1.0.0/release.toml");
    let good = std::fs::read_to_string(&spec).unwrap();
    let shown = spec.display().to_string();
    let out = home.path().join("out").display().to_string();
    let cases = [
        (r#", "9"]"#, "]", &["labels", "10 names", "\"scores\"", "got 9"][..]),
        (r#""8", "9"]"#, r#""8", "8"]"#, &["labels", "without duplicates", "\"8\" twice"]),
        ("height = 8", "height = 16", &["monitor.height", "must be 8", "got 16"]),
        ("width = 8", "width = 16", &["monitor.width", "must be 8", "got 16"]),
        ("channels = 1", "channels = 3", &["monitor.channels", "must be 1", "got 3"]),
        (r#"tract = "0.23""#, r#"tract = "9.9""#, &["runtime.tract", "\"9.9\"", "0.23"]),
        (
            r#"arch = ["x86_64""#,
            r#"arch = ["x86-64""#,
            &["hardware.arch", "\"x86-64\"", "mean \"x86_64\"", "riscv64"],
        ),
        (r#"arch = ["x86_64""#, r#"arch = ["vax""#, &["hardware.arch", "\"vax\"", "known are x86_64"]),
    ];
    for (old, new, expected) in cases {
        assert!(good.contains(old), "{old}");
        std::fs::write(&spec, good.replacen(old, new, 1)).unwrap();
        let (code, said) = fail(home.path(), &["release", "build", &shown, "--out", &out]);
        let is_told = expected.iter().all(|part| said.contains(part)) && said.contains(&shown);
        assert!(code == 1 && is_told, "{new}: {code} {said}");
    }
    assert!(!Path::new(&out).join("manifest.json").exists());
    std::fs::write(
        &spec,
        good.replacen("min_agent_version = \"0.1.0\"", "min_agent_version = \"99.0.0\"", 1),
    )
    .unwrap();
    let output = flotilla(home.path(), &["release", "build", &shown, "--out", &out]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("warning: min_agent_version"), "{said}");
}

#[test]
fn a_reference_that_was_made_for_another_monitor_is_refused() {
    let home = digits_copy("1.0.0");
    let spec = home.path().join("1.0.0/release.toml");
    let good = std::fs::read_to_string(&spec).unwrap();
    let monitor = good.find("[monitor]").unwrap();
    let rest = monitor + good[monitor..].find("[budgets]").unwrap();
    std::fs::write(&spec, [&good[..monitor], &good[rest..]].concat()).unwrap();
    let out = home.path().join("out").display().to_string();
    let (code, said) = fail(home.path(), &["release", "build", &spec.display().to_string(), "--out", &out]);
    assert!(
        code == 1 && said.contains("reference: it counts images") && said.contains("no feature"),
        "{said}"
    );
}

#[test]
fn a_passphrase_is_changed_by_the_environment() {
    let home = tempfile::tempdir().unwrap();
    let keys = |words: &[&str], env: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flotilla"));
        command.args(["--json", "--project", "p", "keys"]).args(words).env_clear();
        command.env("HOME", home.path()).env("XDG_CONFIG_HOME", home.path()).envs(env.iter().copied());
        let output = command.output().unwrap();
        let said = if output.status.success() { output.stdout } else { output.stderr };
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    };
    let (old, new) =
        (("FLOTILLA_PASSPHRASE", "correct horse"), ("FLOTILLA_NEW_PASSPHRASE", "battery staple"));
    assert_eq!(keys(&["new"], &[old]).0, 0);
    let (code, said) = keys(&["passphrase"], &[("FLOTILLA_PASSPHRASE", "wrong horse"), new]);
    assert!(code == 1 && said.contains("wrong passphrase"), "{said}");
    let (code, said) = keys(&["passphrase"], &[old, ("FLOTILLA_NEW_PASSPHRASE", "short")]);
    assert!(code == 1 && said.contains("at least 8 characters"), "{said}");
    let (code, said) = keys(&["passphrase", "root", "targets"], &[old, new]);
    let changed: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, changed["keys"].as_array().unwrap().len()), (0, 2), "{said}");
    assert_eq!(keys(&["passphrase"], &[old, new]).0, 1, "the old one opens nothing any more");
    assert_eq!(keys(&["new", "--model", "digits"], &[("FLOTILLA_PASSPHRASE", "battery staple")]).0, 0);
}

#[test]
fn errors_name_file_field_and_way_out() {
    let home = tempfile::tempdir().unwrap();
    let (code, said) = fail(home.path(), &["device", "list"]);
    assert!(code == 77 && said.contains("flotilla login"), "{said}");
    let (code, said) = fail(home.path(), &["release", "build", "nowhere.toml"]);
    assert!(code == 1 && said.contains("cannot read nowhere.toml"), "{said}");
    let spec = home.path().join("release.toml");
    std::fs::write(&spec, "model = \"../x\"\n").unwrap();
    let (_, said) = fail(home.path(), &["release", "build", &spec.display().to_string()]);
    assert!(said.contains("model name") && said.contains("line 1"), "{said}");
    let (code, _) = fail(home.path(), &["rollout", "explode"]);
    assert_eq!(code, 2);
    for (words, expected) in [
        (&["user", "create", "ana", "--grant", "porto"][..], "PROJECT:ROLE"),
        (&["user", "set", "ana"], "--grant"),
        (&["user", "set", "ana", "--enable", "--disable"], "cannot be used with"),
        (&["user", "create", "ana", "--password", "secret"], "unexpected argument"),
    ] {
        let (code, said) = fail(home.path(), words);
        assert!(code == 2 && said.contains(expected), "{words:?}: {said}");
    }
    let ca = home.path().join("ca.pem");
    std::fs::write(&ca, "no certificate").unwrap();
    let login = ["login", "--server", "https://127.0.0.1:1", "--ca", &ca.display().to_string()];
    let (code, said) = fail(home.path(), &login);
    assert!(code == 1 && said.contains("CA"), "{said}");
}
