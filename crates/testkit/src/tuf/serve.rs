//! A simulated repository behind a real socket: metadata under `/metadata/`, targets under `/targets/`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Sim;
use super::device::percent_decode;

/// A repository that is being served until the process ends; it may be changed meanwhile.
pub struct Served {
    /// `http://127.0.0.1:PORT`
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    sim: Mutex<Sim>,
    asked: Mutex<Vec<String>>,
}

impl Served {
    /// Begins to serve on a free port.
    ///
    /// # Errors
    /// When there is no port.
    pub fn begin(sim: Sim) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared { sim: Mutex::new(sim), asked: Mutex::default() });
        let server = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that went away is no fault of the server's.
                let _ = server.answer(&stream);
            }
        });
        Ok(Self { address, shared })
    }

    /// The repository.
    pub fn sim(&self) -> MutexGuard<'_, Sim> {
        self.shared.sim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decoded paths that were asked for since the last call.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shared {
    fn answer(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        for line in lines.by_ref() {
            if line?.is_empty() {
                break;
            }
        }
        let path = percent_decode(first.split(' ').nth(1).unwrap_or_default());
        let content = {
            let sim = self.sim.lock().unwrap_or_else(PoisonError::into_inner);
            let metadata = path.strip_prefix("/metadata/").and_then(|name| sim.files.get(name));
            let target = path.strip_prefix("/targets/").and_then(|name| sim.targets.get(name));
            metadata.or(target).cloned()
        };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(path);
        let status = if content.is_some() { "200 OK" } else { "404 Not Found" };
        let content = content.unwrap_or_default();
        let mut stream = stream;
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            content.len()
        )?;
        stream.write_all(&content)
    }
}
