//! A client of the local API that costs next to nothing: requests are bytes made beforehand, one connection each.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::device::MODEL;

/// A request, ready to be sent, and what its answer must end with.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    bytes: Vec<u8>,
    /// Bytes of the expected binary outputs; empty where the answer is JSON.
    expected: Vec<u8>,
}

impl Prepared {
    /// An inference of one image in JSON, or of several.
    pub(super) fn json(pixels: &[f32]) -> Self {
        let body = json!({ "inputs": [input(pixels, &json!({ "data": pixels }))] }).to_string();
        Self { bytes: post(&body, "", &[]), expected: Vec::new() }
    }

    /// The same in the protocol's binary form, both ways.
    pub(super) fn binary(pixels: &[f32], scores: &[f32]) -> Self {
        let behind: Vec<u8> = pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
        let parameters = json!({ "parameters": { "binary_data_size": behind.len() } });
        let json = json!({
            "inputs": [input(pixels, &parameters)],
            "outputs": [{ "name": "scores", "parameters": { "binary_data": true } }],
        });
        let json = json.to_string();
        let header = format!("Inference-Header-Content-Length: {}\r\n", json.len());
        let expected = scores.iter().flat_map(|score| score.to_le_bytes()).collect();
        Self { bytes: post(&json, &header, &behind), expected }
    }
}

fn input(pixels: &[f32], more: &Value) -> Value {
    let mut input = json!({ "name": "image", "datatype": "FP32", "shape": [pixels.len() / 64, 1, 8, 8] });
    if let (Some(input), Some(more)) = (input.as_object_mut(), more.as_object()) {
        input.extend(more.clone());
    }
    input
}

fn post(json: &str, header: &str, behind: &[u8]) -> Vec<u8> {
    let length = json.len() + behind.len();
    let head = format!(
        "POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: localhost\r\n{header}Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), json.as_bytes(), behind].concat()
}

/// A connection that is kept open.
pub(super) struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl Connection<TcpStream> {
    /// To the TCP address.
    pub(super) fn tcp(address: std::net::SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).context("cannot reach the local API")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }
}

impl Connection<UnixStream> {
    /// To the unix socket.
    pub(super) fn unix(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).context("cannot reach the local API's socket")?;
        Ok(Self { stream, buffer: Vec::new() })
    }
}

impl<S: Read + Write> Connection<S> {
    /// Asks once and checks the answer.
    pub(super) fn ask(&mut self, request: &Prepared) -> Result<()> {
        ensure!(self.offer(request)?, "overloaded: {}", String::from_utf8_lossy(&self.buffer));
        Ok(())
    }

    /// The same; whether it was taken, and not told to come back later.
    pub(super) fn offer(&mut self, request: &Prepared) -> Result<bool> {
        self.stream.write_all(&request.bytes)?;
        self.buffer.clear();
        let mut end = None;
        while end.is_none_or(|end| self.buffer.len() < end) {
            let mut piece = [0; 4096];
            let got = self.stream.read(&mut piece)?;
            ensure!(got > 0, "the connection was closed after {} bytes", self.buffer.len());
            self.buffer.extend_from_slice(&piece[..got]);
            if end.is_none() {
                end = answer_end(&self.buffer)?;
            }
        }
        if self.buffer.starts_with(b"HTTP/1.1 503 ") {
            let head = String::from_utf8_lossy(&self.buffer).to_ascii_lowercase();
            ensure!(head.contains("retry-after: "), "it doesn't say when to come back: {head}");
            return Ok(false);
        }
        let is_right = self.buffer.starts_with(b"HTTP/1.1 200 ") && self.buffer.ends_with(&request.expected);
        ensure!(is_right, "a wrong answer: {}", String::from_utf8_lossy(&self.buffer));
        Ok(true)
    }
}

/// How many bytes head and body have, once the head is complete.
fn answer_end(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..head])?.to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("an answer without content-length")?.trim().parse()?;
    Ok(Some(head + 4 + length))
}
