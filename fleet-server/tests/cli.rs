//! The binary's command line: help, configuration errors, exit codes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flotilla-server"));
    command
        .args(arguments)
        .env_clear()
        .env("FLOTILLA_SERVER_SHUTDOWN_S", "2")
        .env("FLOTILLA_PASSWORD", "for the command line")
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_problem_of_the_configuration_is_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.toml");
    std::fs::write(&file, "colour = 'red'\n[https]\nlisten = 'here'\n[jobs]\nwindow_s = -1\n").unwrap();
    let output =
        run(&["check-config", "--config", file.to_str().unwrap(), "--set", "database.url=mysql://x"]);
    assert_eq!(output.status.code(), Some(78));
    let text = stderr(&output);
    for part in
        ["4 problem(s)", "colour", "https.listen", "\"here\"", "jobs.window_s", "database.url", "server.toml"]
    {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn exit_codes_are_the_documented_ones() {
    assert_eq!(run(&["check-config"]).status.code(), Some(0));
    assert_eq!(run(&["fly"]).status.code(), Some(64));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    assert_eq!(run(&["run", "--config", "/does/not/exist.toml"]).status.code(), Some(78));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["run", "--data", dir.path().to_str().unwrap(), "--listen", &address]);
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    assert!(stderr(&output).contains(&address), "the address is not named: {}", stderr(&output));
}

#[test]
fn passwords_and_keys_are_only_replaced_where_a_fleet_lies() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("fleet");
    let data = data.to_str().unwrap();
    for command in [&["reset-password", "admin"][..], &["forget-keys"]] {
        let output = run(&[command, &["--data", data]].concat());
        assert_eq!((output.status.code(), stderr(&output).contains("holds no fleet")), (Some(69), true));
    }
    assert!(!std::path::Path::new(data).exists(), "asking must make nothing");
}
