use super::*;
use std::time::Duration;

fn from_file(text: &str) -> Result<Config, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    RawConfig::default().with_file(&path).check()
}

#[test]
fn nothing_given_is_valid_and_gives_the_defaults() {
    let config = RawConfig::default().check().unwrap();
    assert_eq!(config.link.keep_alive, Duration::from_secs(30));
    assert_eq!(config.update.probation, None);
    assert_eq!(config.serve.listen.map(|address| address.port()), Some(8500));
}

#[test]
fn environment_beats_file_and_flags_beat_both() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, "[link]\nkeep_alive_s = 10\nwindow_batches = 2\n[spool]\nttl_s = 60\n").unwrap();
    let variables =
        [("FLOTILLA_LINK_KEEP_ALIVE_S", "20"), ("FLOTILLA_LINK_WINDOW_BATCHES", "3"), ("HOME", "/root")];
    let config = RawConfig::default()
        .with_file(&path)
        .with_environment(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
        .with_flags(["link.keep_alive_s=40"].into_iter())
        .check()
        .unwrap();
    assert_eq!(config.link.keep_alive, Duration::from_secs(40));
    assert_eq!(config.link.window_batches, 3);
    assert_eq!(config.spool.ttl, Duration::from_mins(1));
}

#[test]
fn a_number_that_json_has_no_word_for_is_shown_as_it_stands() {
    let errors = from_file("[capture]\nrandom_rate = nan\n").unwrap_err().to_string();
    assert!(errors.contains("random_rate = nan"), "{errors}");
}

#[test]
fn all_errors_come_at_once_with_file_key_value_and_expectation() {
    let errors = from_file(
        "[link]\nkeep_alive_s = 1\nkeep_alive = 3\n[serve]\nlisten = \"nowhere\"\n[log]\ntime = 3\nfilter = \"inof\"\n",
    )
    .unwrap_err();
    let text = errors.to_string();
    assert_eq!(errors.0.len(), 5, "{text}");
    for part in [
        "agent.toml",
        "link.keep_alive_s = 1",
        "from 5 to 3600",
        "link.keep_alive = 3",
        "unknown key; did you mean link.keep_alive_s?",
        "serve.listen",
        "log.time",
        "log.filter = \"inof\": expected off, error, warn",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn a_key_that_resembles_none_is_called_unknown_and_nothing_is_suggested() {
    let text = from_file("[serve]\ncolour = 1\n").unwrap_err().to_string();
    assert!(text.ends_with("serve.colour = 1: unknown key"), "{text}");
}

#[test]
fn a_broken_file_and_a_missing_file_are_named() {
    assert!(from_file("[link").unwrap_err().to_string().contains("valid TOML"));
    let missing = RawConfig::default().with_file(std::path::Path::new("/nonexistent/agent.toml")).check();
    assert!(missing.unwrap_err().to_string().contains("no such file"));
}

#[test]
fn variables_of_other_programs_are_left_alone_and_ours_are_checked() {
    let of = |name: &str| {
        let variables = [(name.to_owned(), "x".to_owned())];
        RawConfig::default().with_environment(variables.into_iter()).check()
    };
    let others = ["URL", "INT8_LEVEL", "PASSPHRASE", "AGENT_CONFIG", "SERVER_HTTPS__LISTEN", "BUILT_S"];
    for other in
        others.map(|rest| format!("FLOTILLA_{rest}")).iter().map(String::as_str).chain(["XFLOTILLA_X"])
    {
        assert!(of(other).is_ok(), "{other}");
    }
    assert!(of("FLOTILLA_LINK_SPEED").is_err());
    assert!(of("FLOTILLA_STATE_DIR").unwrap_err().to_string().contains("begins with /"));
}

#[test]
fn a_section_that_is_no_table_is_refused_with_how_one_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, "link = \"x\"\n[[serve]]\nlisten = \"127.0.0.1:1\"\n[[serve]]\n").unwrap();
    let text = RawConfig::default().with_file(&path).check().unwrap_err().to_string();
    for line in [
        "has 2 problem(s)",
        "serve = an array of 2: expected one table, which begins with [serve]",
        "link = string: expected one table, which begins with [link]",
    ] {
        assert!(text.contains(line), "{line:?} is missing in {text}");
    }
}

#[test]
fn what_a_container_host_sets_for_services_beside_is_left_alone() {
    let of = |name: &str, text: &str| {
        let variables = [(format!("FLOTILLA_{name}"), text.to_owned())];
        RawConfig::default()
            .with_environment(variables.into_iter())
            .check()
            .map_err(|errors| errors.to_string())
    };
    for service in ["", "SERVER_", "AGENT_", "LINK_", "MQTT_BROKER_"] {
        for (name, text) in [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "1883"),
            ("SERVICE_PORT_HTTPS", "8443"),
            ("PORT", "tcp://10.0.0.1:1883"),
            ("PORT_1883_TCP", "tcp://10.0.0.1:1883"),
            ("PORT_1883_TCP_PROTO", "tcp"),
            ("PORT_53_UDP_PORT", "53"),
            ("PORT_1883_TCP_ADDR", "10.0.0.1"),
        ] {
            of(&format!("{service}{name}"), text).unwrap();
        }
    }
    for (name, text) in [
        ("PORT", "8500"),
        ("MQTT_PORT", "1883"),
        ("SERVICE_PORT", "x"),
        ("SERVICE", "x"),
        ("PORT_TCP", "tcp://10.0.0.1:1883"),
        ("PORT_1883_TCP_NAME", "x"),
        ("PORT_1883_HTTP", "tcp://10.0.0.1:1883"),
    ] {
        assert!(of(name, text).is_err(), "{name}={text}");
    }
    let misspelt = of("SERVER_LISTEN", "127.0.0.1:1").unwrap_err();
    assert!(misspelt.contains("did you mean FLOTILLA_SERVE_LISTEN?"), "{misspelt}");
}

#[test]
fn a_variable_of_ours_that_nobody_knows_is_refused_with_the_one_that_was_meant() {
    let variables = [
        ("FLOTILLA_SERVR_LISTEN", "127.0.0.1:1"),
        ("FLOTILLA_STATEDIR", "/x"),
        ("FLOTILLA_LINK", "x"),
        ("FLOTILLA_PASWORD", "hush"),
    ];
    let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let text = RawConfig::default().with_environment(variables).check().unwrap_err().to_string();
    for line in [
        "has 4 problem(s)",
        "environment FLOTILLA_SERVR_LISTEN: a value that is not shown: unknown variable; did you mean FLOTILLA_SERVE_LISTEN?",
        "FLOTILLA_STATEDIR: a value that is not shown: unknown variable; did you mean FLOTILLA_STATE_DIR?",
        "FLOTILLA_LINK: a value that is not shown: unknown variable; FLOTILLA_ is followed by a section and a key",
    ] {
        assert!(text.contains(line), "{line:?} is missing in {text}");
    }
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn the_usual_proxy_variables_stand_in_where_nothing_of_ours_is_said() {
    let variables = [("HTTPS_PROXY", "http://b:2"), ("https_proxy", "http://a:1"), ("NO_PROXY", "x.lan")];
    let with = |raw: RawConfig| {
        let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        raw.with_environment(variables).check().unwrap().link.proxies
    };
    let proxies = with(RawConfig::default());
    assert_eq!(proxies.for_host("fleet.example").map(ToString::to_string), Some("http://a:1".into()));
    assert_eq!(proxies.for_host("x.lan"), None);
    let ours = with(RawConfig::default().with_flags(["link.proxy=off"].into_iter()));
    assert_eq!(ours.for_host("fleet.example"), None);
    let wrong = RawConfig::default().with_flags(["link.proxy=socks5://h:1"].into_iter()).check();
    assert!(wrong.unwrap_err().to_string().contains("link.proxy"));
}

#[test]
fn only_an_address_of_this_machine_is_no_exposure() {
    let exposure = |listen: &str| {
        from_file(&format!("[serve]\nlisten = \"{listen}\"\nunix = \"/x\"\n")).unwrap().serve.exposure()
    };
    for alone in ["127.0.0.1:8500", "127.8.0.1:1", "[::1]:8500", "off"] {
        assert_eq!(exposure(alone), None, "{alone}");
    }
    for open in ["0.0.0.0:8500", "[::]:8500", "192.168.1.2:8500"] {
        assert!(exposure(open).unwrap().contains(open), "{open}");
    }
}

#[test]
fn labels_are_a_table_of_texts() {
    let config = from_file("[device.labels]\nsite = \"north\"\n").unwrap();
    assert_eq!(config.device.labels["site"], "north");
    assert!(from_file("[device]\nlabels = { site = 3 }\n").is_err());
}

#[test]
fn a_flag_without_value_is_named() {
    assert!(RawConfig::default().with_flags(["verbose"].into_iter()).check().is_err());
}

#[test]
fn declared_inputs_need_their_model_and_a_place_for_answers() {
    let none = from_file("").unwrap();
    assert!(none.folder.is_none() && none.mqtt.is_none());
    let both = "[folder]\nwatch = \"/in\"\nmodel = \"digits\"\n\
        [mqtt]\nbroker = \"[::1]:1883\"\nmodel = \"digits\"\ntopic_in = \"a/+\"\ntopic_out = \"b\"\n";
    let config = from_file(both).unwrap();
    assert_eq!(config.folder.unwrap().out, std::path::Path::new("/in/out"));
    let mqtt = config.mqtt.unwrap();
    assert_eq!((mqtt.host.as_str(), mqtt.port), ("::1", 1883));
    for (wrong, words) in [
        ("[folder]\nwatch = \"/in\"\n", "folder.model beside it"),
        ("[folder]\nwatch = \"/in\"\nmodel = \"Bad Name!\"\n", "a model's name"),
        ("[folder]\nwatch = \"/in\\u0000\"\nmodel = \"digits\"\n", "no control characters"),
        ("[device]\nclass = \"\\u001b[31mred\"\n", "without control characters"),
        ("[folder]\nwatch = \"/in\"\nmodel = \"m\"\nout = \"/in\"\n", "another folder"),
        ("[mqtt]\nbroker = \"h:1\"\nmodel = \"m\"\ntopic_in = \"a\"\n", "mqtt.topic_out beside it"),
        ("[mqtt]\nbroker = \"h\"\nmodel = \"m\"\ntopic_in = \"a\"\ntopic_out = \"b\"\n", "a host and a port"),
        ("[mqtt]\nbroker = \"h:1\"\nmodel = \"m\"\ntopic_in = \"a\"\ntopic_out = \"b/#\"\n", "wildcards"),
        ("[mqtt]\nbroker = \"h:1\"\nmodel = \"m\"\ntopic_in = \"a\"\ntopic_out = \"a\"\n", "another topic"),
        (
            "[mqtt]\nbroker = \"h:1\"\nmodel = \"m\"\ntopic_in = \"a/#\"\ntopic_out = \"a/b\"\n",
            "another topic",
        ),
        ("[mqtt]\nbroker = \"h:1\"\nmodel = \"m\"\ntopic_in = \"a#\"\ntopic_out = \"b\"\n", "whole levels"),
        ("[folder]\nwatch = \"/x/in\"\nmodel = \"m\"\nout = \"/x/../x/in\"\n", "another folder"),
    ] {
        let text = from_file(wrong).unwrap_err().to_string();
        assert!(text.contains(words), "{words:?} is missing in {text}");
    }
}

#[test]
fn a_least_value_above_the_most_is_refused_where_it_was_given() {
    let refused = |text: &str| from_file(text).unwrap_err().to_string();
    for (wrong, words) in [
        (
            "[link]\nbackoff_min_ms = 60000\nbackoff_max_s = 1\n",
            "agent.toml: link.backoff_min_ms = 60000: expected at most link.backoff_max_s, which is 1s",
        ),
        (
            "[update]\nretry_min_s = 7200\n",
            "agent.toml: update.retry_min_s = 7200: expected at most update.retry_max_s, which is 3600s",
        ),
        (
            "[update]\nretry_max_s = 4\n",
            "agent.toml: update.retry_max_s = 4: expected at least update.retry_min_s, which is 5s",
        ),
        ("[serve]\nqueue = 2\nthreads = 3\n", "serve.threads = 3: expected at most serve.queue, which is 2"),
        (
            "[capture]\nquota_bytes = 2048\nmax_bytes = 4096\n",
            "capture.max_bytes = 4096: expected at most capture.quota_bytes, which is 2048",
        ),
    ] {
        let text = refused(wrong);
        assert!(text.contains(words) && text.contains("has 1 problem"), "{words:?} is missing in {text}");
    }
    let equal = "[link]\nbackoff_min_ms = 1000\nbackoff_max_s = 1\n[serve]\nqueue = 2\nthreads = 2\n";
    for right in [equal, "[serve]\nqueue = 1\n", "[capture]\nquota_bytes = 2048\n"] {
        assert!(from_file(right).is_ok(), "{right}");
    }
}

#[test]
fn a_sockets_path_fits_into_its_address() {
    let path = |bytes: usize| format!("/{}", "s".repeat(bytes - 1));
    let text = from_file(&format!("[serve]\nunix = \"{}\"\n", path(108))).unwrap_err().to_string();
    assert!(text.contains("agent.toml: serve.unix = \"/sss"), "{text}");
    assert!(
        text.ends_with("expected a path of at most 107 bytes: a socket's address holds no more"),
        "{text}"
    );
    assert!(from_file(&format!("[serve]\nunix = \"{}\"\n", path(107))).is_ok());
    let socket = |path: String| std::os::unix::net::SocketAddr::from_pathname(path).is_ok();
    assert!(socket(path(107)) && !socket(path(108)), "the system agrees");
}

#[test]
fn a_file_in_another_encoding_is_refused_at_its_first_wrong_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, b"[device]\nclass = \"caf\xe9\"\n").unwrap();
    let text = RawConfig::default().with_file(&path).check().unwrap_err().to_string();
    assert!(text.contains("agent.toml: byte 0xe9 at offset 21: expected UTF-8 text"), "{text}");
}

#[test]
fn a_variable_in_another_encoding_is_named_if_it_is_ours() {
    use std::os::unix::ffi::OsStringExt as _;
    let of = |name: &str| {
        let variables = [(name.to_owned(), std::ffi::OsString::from_vec(b"caf\xe9".to_vec()))];
        RawConfig::default().with_environment(variables.into_iter()).check()
    };
    assert!(of("LC_ALL").is_ok());
    for ours in ["FLOTILLA_DEVICE_CLASS", "https_proxy"] {
        let text = of(ours).unwrap_err().to_string();
        assert!(text.contains(&format!("environment {ours}")) && text.contains("UTF-8 text"), "{text}");
    }
}

#[test]
fn what_is_read_again_is_a_file_that_still_says_something() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    let again = |has_said| RawConfig::default().with_file_again(&path, has_said).check();
    let refused = |words: &str| {
        let text = again(true).unwrap_err().to_string();
        assert!(text.contains(&path.display().to_string()) && text.contains(words), "{text}");
    };
    refused("no such file");
    for empty in ["", "\n# all gone\n", "[link]\n"] {
        std::fs::write(&path, empty).unwrap();
        refused("an empty file");
        assert!(again(false).is_ok(), "it was empty before");
    }
    std::fs::write(&path, "[link]\nkeep_alive_s = 7\n").unwrap();
    assert_eq!(again(true).unwrap().link.keep_alive, Duration::from_secs(7));
    std::fs::remove_file(&path).unwrap();
    // Nobody writes into it: reading it would last for ever.
    make_fifo(&path);
    refused("expected a regular file");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/null", &path).unwrap();
    refused("expected a regular file");
}

fn make_fifo(path: &std::path::Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}
