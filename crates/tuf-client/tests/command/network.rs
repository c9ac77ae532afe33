//! What servers and networks do to answers: absence told in other words, truncation, odd forms of a body.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use testkit::tuf::Sim;

use crate::client::{Client, is_done, is_refused, served};

/// How a server puts a file into an answer.
type Form = fn(&[u8]) -> Vec<u8>;

/// Answers with the bytes that `answer` makes of a path and of the file that lies there.
fn serve(
    sim: &Sim,
    answer: impl Fn(&str, Option<&[u8]>) -> Vec<u8> + Send + 'static,
) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let files = sim.files.clone();
    let heads: Arc<Mutex<String>> = Arc::default();
    let seen = heads.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
            *seen.lock().unwrap() += &(head.join("\n").to_lowercase() + "\n");
            let file = path.rsplit('/').next().and_then(|name| files.get(name));
            // A client that went away is no fault of the server's.
            let _ = stream.write_all(&answer(&path, file.map(Vec::as_slice)));
        }
    });
    (address, heads)
}

fn with_length(status: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn plain(file: Option<&[u8]>) -> Vec<u8> {
    match file {
        Some(bytes) => with_length("200 OK", bytes.len(), bytes),
        None => with_length("404 Not Found", 0, b""),
    }
}

fn chunked(bytes: &[u8]) -> Vec<u8> {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".to_vec();
    bytes.chunks(7).fold(head, |mut all, piece| {
        all.extend(format!("{:x}\r\n", piece.len()).bytes());
        all.extend([piece, b"\r\n"].concat());
        all
    })
}

fn client_of(
    answer: impl Fn(&str, Option<&[u8]>) -> Vec<u8> + Send + 'static,
) -> (Client, Arc<Mutex<String>>) {
    let repository = served(|_| {});
    let sim = repository.sim();
    let (address, heads) = serve(&sim, answer);
    (Client::given(&sim.files["1.root.json"], &address), heads)
}

#[test]
fn absence_of_a_newer_root_is_404_or_403_and_no_other_answer() {
    for status in ["404 Not Found", "403 Forbidden"] {
        let (client, _) = client_of(move |_, file| match file {
            Some(_) => plain(file),
            None => with_length(status, 0, b""),
        });
        is_done(&client.refresh());
    }
    for status in ["500 Internal Server Error", "503 Busy", "429 Slow down", "401 Who", "204 No Content"] {
        let (client, _) = client_of(move |_, file| match file {
            Some(_) => plain(file),
            None => with_length(status, 0, b""),
        });
        is_refused(&client.refresh(), "2.root.json");
        assert_eq!(client.stored().len(), 1, "{status}: only the first root");
    }
}

#[test]
fn d5_any_role_that_is_not_there_is_a_refusal() {
    for (absent, step) in [
        ("timestamp.json", "timestamp.json"),
        (".snapshot.json", "snapshot.json"),
        (".targets.json", "targets.json"),
    ] {
        for status in ["404 Not Found", "403 Forbidden", "500 Broken"] {
            let (client, _) =
                client_of(
                    move |path, file| {
                        if path.ends_with(absent) { with_length(status, 0, b"") } else { plain(file) }
                    },
                );
            is_refused(&client.refresh(), step);
        }
    }
}

#[test]
fn a_body_may_come_in_any_form_that_http_knows() {
    let forms: [Form; 3] = [
        |bytes| [b"HTTP/1.0 200 OK\r\n\r\n", bytes].concat(),
        |bytes| [&chunked(bytes)[..], b"0\r\n\r\n"].concat(),
        |bytes| {
            let head = "HTTP/1.1 200 OK\r\nServer: x\r\nETag: \"1\"\r\nContent-Type: text/html\r\n";
            let head = format!("{head}Connection: close\r\nContent-Length: {}\r\n\r\n", bytes.len());
            [head.as_bytes(), bytes].concat()
        },
    ];
    for form in forms {
        let (client, heads) = client_of(move |_, file| file.map_or_else(|| plain(None), form));
        is_done(&client.refresh());
        let heads = heads.lock().unwrap();
        assert!(
            !heads.contains("gzip"),
            "lengths and hashes are those of the file as it lies there: {heads}"
        );
    }
}

#[test]
fn truncated_answers_are_refused_and_nothing_of_them_is_stored() {
    let cuts: [Form; 3] = [
        |bytes| with_length("200 OK", bytes.len(), &bytes[..bytes.len() / 2]),
        |bytes| chunked(&bytes[..bytes.len() / 2]),
        |bytes| [b"HTTP/1.0 200 OK\r\n\r\n", &bytes[..bytes.len() / 2]].concat(),
    ];
    for cut in cuts {
        for (role, stored) in [("timestamp.json", 1), (".snapshot.json", 2), (".targets.json", 3)] {
            let (client, _) = client_of(move |path, file| match file {
                Some(bytes) if path.ends_with(role) => cut(bytes),
                _ => plain(file),
            });
            is_refused(&client.refresh(), role.trim_start_matches('.').trim_end_matches(".json"));
            assert_eq!(client.stored().len(), stored, "{role}");
        }
    }
}

#[test]
fn a_server_that_speaks_nonsense_or_hangs_up_is_refused() {
    for nonsense in
        [&b""[..], b"hello", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 999999\r\n\r\n", b"\0\xff\r\n\r\n"]
    {
        let (client, _) = client_of(move |_, _| nonsense.to_vec());
        is_refused(&client.refresh(), "2.root.json");
    }
    let endless = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: y\r\n".repeat(1_000_000)].concat();
    let (client, _) = client_of(move |_, _| endless.clone());
    is_refused(&client.refresh(), "2.root.json");
}

#[test]
fn redirects_are_followed_but_not_for_ever() {
    let to = |path: &str| {
        let head = format!("HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\n");
        [head.as_bytes(), b"Connection: close\r\n\r\n"].concat()
    };
    let (client, _) = client_of(move |path, file| {
        if path.starts_with("/elsewhere") || file.is_none() {
            plain(file)
        } else {
            to(&path.replace("/metadata", "/elsewhere"))
        }
    });
    is_done(&client.refresh());
    let (client, _) = client_of(move |path, _| to(path));
    is_refused(&client.refresh(), "2.root.json");
}

#[test]
fn a_proxy_is_not_asked_for_what_is_on_this_machine() {
    let repository = served(|_| {});
    let client = Client::begin(&repository);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tuf-client"));
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:1");
    }
    command.env_remove("no_proxy").env_remove("NO_PROXY").arg("--metadata-dir").arg(client.path("metadata"));
    let url = format!("{}/metadata", client.address);
    is_done(&command.args(["--metadata-url", &url, "refresh"]).output().unwrap());
}
