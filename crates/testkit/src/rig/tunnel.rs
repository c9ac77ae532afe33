//! An HTTP proxy on loopback that opens tunnels for who knows the password, and leads every name to this machine.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Result;

/// User and password that open tunnels.
pub const CREDENTIALS: &str = "dev:secret";
/// The same as a client says it.
const AUTHORIZATION: &str = "Basic ZGV2OnNlY3JldA==";
const MAX_HEAD_BYTES: usize = 4096;

/// A proxy that runs until it is dropped; tunnels end with their ends.
#[derive(Debug)]
pub struct TunnelProxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// Whether a tunnel to `host:port` is refused.
type Refuses = dyn Fn(&str) -> bool + Send + Sync;

struct Shared {
    opened: Mutex<Vec<String>>,
    refuses: Mutex<Arc<Refuses>>,
    refused: AtomicU64,
    is_ending: AtomicBool,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            opened: Mutex::default(),
            refuses: Mutex::new(Arc::new(|_| false)),
            refused: AtomicU64::new(0),
            is_ending: AtomicBool::new(false),
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("opened", &self.opened).finish_non_exhaustive()
    }
}

impl TunnelProxy {
    /// Listens on a free port.
    ///
    /// # Errors
    /// When loopback has none left.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (port, shared) = (listener.local_addr()?.port(), Arc::new(Shared::default()));
        let of_thread = shared.clone();
        let accepting = std::thread::spawn(move || accept(&listener, &of_thread));
        Ok(Self { port, shared, accepting: Some(accepting) })
    }

    /// Its address with these credentials, as configurations name it.
    pub fn url(&self, credentials: &str) -> String {
        format!("http://{credentials}@127.0.0.1:{}", self.port)
    }

    /// What tunnels were opened to, as `host:port`.
    pub fn opened(&self) -> Vec<String> {
        self.shared.opened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Refuses new tunnels to `host:port` while this says so; those that are open stay.
    pub fn refuse(&self, judge: impl Fn(&str) -> bool + Send + Sync + 'static) {
        *self.shared.refuses.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(judge);
    }

    /// How many tunnels were refused so.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::SeqCst)
    }
}

impl Drop for TunnelProxy {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ended = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.is_ending.load(Ordering::SeqCst) {
            return;
        }
        let (Ok(client), shared) = (client, shared.clone()) else { continue };
        std::thread::spawn(move || serve(client, &shared));
    }
}

fn serve(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let head = read_head(&mut client)?;
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let port = target.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let (true, Some(port)) = (head.contains(AUTHORIZATION), port) else {
        let answer =
            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
        return client.write_all(answer.as_bytes());
    };
    let refuses = shared.refuses.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if refuses(&target) {
        shared.refused.fetch_add(1, Ordering::SeqCst);
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n");
    }
    let server = TcpStream::connect(("127.0.0.1", port))?;
    shared.opened.lock().unwrap_or_else(PoisonError::into_inner).push(target);
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (back, forth) = ((server.try_clone()?, client.try_clone()?), (client, server));
    let backward = std::thread::spawn(move || pump(back));
    pump(forth);
    let _ended = backward.join();
    Ok(())
}

fn pump((mut from, mut to): (TcpStream, TcpStream)) {
    let _broken = io::copy(&mut from, &mut to);
    let _gone = to.shutdown(Shutdown::Write);
}

/// Byte by byte, so that nothing of the tunnel is read with it.
fn read_head(client: &mut TcpStream) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while head.len() < MAX_HEAD_BYTES && !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
