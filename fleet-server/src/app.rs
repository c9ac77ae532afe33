//! Composition root: the only file that names every part.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::stream_places::StreamPlaces;
use crate::blobs::derived::Derived;
use crate::blobs::{BlobError, Blobs};
use crate::bus::EventBus;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::passwords::PasswordThread;
use crate::domain::rollouts;
use crate::domain::users::{self, FirstAdmin};
use crate::downlink::Downlink;
use crate::link::{BrokerError, Link, LinkCounters, LinkIo, StoreGate, forget_connections};
use crate::listener::TlsListener;
use crate::metrics::Metrics;
use crate::pki::{Authority, FailureLimiter, PkiError, ServerCertificate, TlsConfigs, keep_fresh};
use crate::store::{Dialect, Store, StoreError, leases};
use crate::supervisor::{Ending, OnEnd, Supervisor};
use crate::tuf::{SealError, SealKey};
use crate::{api, ids, jobs, tuf};

/// Failed enrolments per address in a minute before it must wait: a rack of devices behind one address may err.
const FAILED_ENROLMENTS: u32 = 60;

/// What every part may use. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// The database.
    pub store: Store,
    /// Content-addressed bytes.
    pub blobs: Blobs,
    /// What travels in their place.
    pub derived: Derived,
    /// What changed.
    pub bus: EventBus,
    /// The time.
    pub clock: Clock,
    /// The checked configuration.
    pub config: Arc<Config>,
    /// What others call this server's ports.
    pub urls: Arc<PublicUrls>,
    /// The fleet's certificate authority.
    pub authority: Arc<Authority>,
    /// The way down to devices.
    pub downlink: Downlink,
    /// Counters for Prometheus.
    pub metrics: Metrics,
    /// Opens the server's own signing keys.
    pub seal: Arc<SealKey>,
    /// Slows down addresses whose enrolments fail.
    pub enrolment: Arc<FailureLimiter>,
    /// Slows down guessing of passwords.
    pub sign_in: Arc<users::SignInLimiter>,
    /// Hashes and checks passwords.
    pub passwords: PasswordThread,
    /// Random name of this process, for leases.
    pub instance: Arc<str>,
    /// Places for live streams.
    pub streams: StreamPlaces,
    /// Jobs that nobody runs.
    pub standstill: jobs::Standstill,
    /// Cancelled when the server shuts down.
    pub closing: CancellationToken,
}

/// What others call this server's ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrls {
    /// Console, REST and enrolment.
    pub https: String,
    /// Metadata and blobs for devices.
    pub device: String,
    /// The broker.
    pub mqtt: String,
}

/// Why the server can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A folder can't be made.
    #[error("cannot make folder {path}", path = path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another server works on the folder.
    #[error("another server uses {path}", path = .0.display())]
    Locked(PathBuf),
    /// A port can't be had.
    #[error("cannot listen on {address} for {port}")]
    Bind {
        /// Which port.
        port: &'static str,
        /// The address that was asked for.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database can't be used.
    #[error("the database can't be used")]
    Store(#[from] StoreError),
    /// The blob folder can't be used.
    #[error("the blob store can't be used")]
    Blobs(#[from] BlobError),
    /// The certificate authority can't be used.
    #[error("the certificate authority can't be used")]
    Pki(#[from] PkiError),
    /// The key file of the server's own signing keys can't be used.
    #[error("the server's own signing keys can't be used")]
    Seal(#[from] SealError),
    /// The system has no thread left.
    #[error("a thread can't be started")]
    Thread(#[source] std::io::Error),
    /// The embedded broker can't be set up.
    #[error("the embedded broker can't be set up")]
    Broker(#[from] BrokerError),
    /// The first admin can't be made.
    #[error("the first admin can't be made")]
    FirstAdmin(#[from] users::UserError),
}

/// A server whose ports are bound and whose tasks run.
pub struct Running {
    /// What every part uses; tests look in through it.
    pub state: AppState,
    /// Where it listens.
    pub bound: Bound,
    /// The first admin's one-time password, at first start only.
    pub first_admin: Option<FirstAdmin>,
    /// The broker and the server's session with it.
    pub link: Link,
    supervisor: Supervisor,
    _lock: std::fs::File,
}

/// Where the server listens; ports are the real ones if 0 was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Console and REST.
    pub https: SocketAddr,
    /// Metadata and blobs for devices.
    pub device: SocketAddr,
    /// The broker.
    pub mqtt: SocketAddr,
}

struct Ports {
    https: TcpListener,
    device: TcpListener,
    mqtt: TcpListener,
}

/// Opens everything, binds the ports and starts the tasks.
///
/// # Errors
/// [`StartError`] names the part that can't start; nothing is left running then.
pub async fn start(config: Config, clock: Clock) -> Result<Running, StartError> {
    make_folder(&config.data_dir)?;
    let lock = lock(&config.data_dir)?;
    let ports = Ports::bind(&config).await?;
    let bound = ports.bound(&config)?;
    let (downlink, requests) = Downlink::new();
    let mut supervisor = Supervisor::default();
    let state = open(config, clock, bound, downlink, supervisor.shutdown_signal()).await?;
    let first_admin = users::ensure_first_start(&state).await?;
    let folder = state.config.data_dir.join("ca");
    let ca = &state.config.authority;
    let certificate = ServerCertificate::load_or_issue(
        &folder,
        &state.authority,
        &ca.names,
        ca.server_certificate,
        state.clock.now(),
    )?;
    let certificate = Arc::new(certificate);
    let tls = TlsConfigs::new(&state.authority, &certificate)?;
    forget_connections(&state.store).await?;
    if state.store.dialect() == Dialect::Sqlite {
        // The file is ours alone: whoever held a lease is gone.
        leases::forget_all(&state.store).await?;
    }

    let router = api::router(state.clone());
    serve(&mut supervisor, "https", ports.https, &tls.https, router);
    let link = LinkIo {
        listener: Some(ports.mqtt),
        tls: tls.device.clone(),
        external: None,
        requests,
        on_task: rollouts::task_hook(&state),
    };
    let gate = Arc::new(StoreGate::new(state.store.clone(), LinkCounters::new(&state.metrics)));
    let link = Link::start(&state, link, &mut supervisor).await?;
    let router = tuf::device_port::router(state.clone(), gate);
    serve(&mut supervisor, "device", ports.device, &tls.device, router);
    let (authority, clock) = (state.authority.clone(), state.clock.clone());
    supervisor.spawn("certificate", OnEnd::Restart, move |shutdown| {
        let fresh = keep_fresh(certificate.clone(), authority.clone(), clock.clone(), shutdown);
        async move { Ok(fresh.await?) }
    });
    spawn_job(&mut supervisor, "metadata", &state, tuf::refresh::run);
    spawn_job(&mut supervisor, "retention", &state, jobs::retention::run);
    spawn_job(&mut supervisor, "rollouts", &state, jobs::rollouts::run);
    spawn_job(&mut supervisor, "windows", &state, jobs::windows::run);
    Ok(Running { state, bound, first_admin, link, supervisor, _lock: lock })
}

impl Running {
    /// The signal that asks everything to end; cancel it to shut down.
    pub fn shutdown_signal(&self) -> CancellationToken {
        self.supervisor.shutdown_signal()
    }

    /// Runs until the shutdown signal, then drains with the configured deadline.
    pub async fn run(self) -> Ending {
        let ending = self.supervisor.run(self.state.config.shutdown).await;
        self.state.store.close().await;
        ending
    }
}

/// Two servers with brokers of their own over one data folder would each take the other's devices for offline.
fn lock(data_dir: &Path) -> Result<std::fs::File, StartError> {
    let failed = |source| StartError::Folder { path: data_dir.to_owned(), source };
    let folder = std::fs::File::open(data_dir).map_err(failed)?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::Locked(data_dir.to_owned())),
        Err(std::fs::TryLockError::Error(e)) => Err(failed(e)),
    }
}

/// Opens the database and brings it up to date.
///
/// # Errors
/// [`StoreError`] when it can't be reached or isn't ours.
pub async fn open_store(config: &Config) -> Result<Store, StoreError> {
    Store::open(&config.database.url, config.database.max_connections).await
}

async fn open(
    config: Config,
    clock: Clock,
    bound: Bound,
    downlink: Downlink,
    closing: CancellationToken,
) -> Result<AppState, StartError> {
    let store = open_store(&config).await?;
    let authority = Authority::load_or_create(&config.data_dir.join("ca"), clock.now())?;
    let metrics = Metrics::default();
    let blobs = Blobs::open(&config.blobs)?;
    Ok(AppState {
        derived: Derived::new(blobs.clone()),
        blobs,
        bus: EventBus::default(),
        urls: Arc::new(PublicUrls::new(&config, bound)),
        sign_in: Arc::new(users::SignInLimiter::new(config.sessions.failures_per_minute)),
        passwords: PasswordThread::start().map_err(StartError::Thread)?,
        instance: hex::encode(ids::random_bytes::<8>()).into(),
        seal: Arc::new(SealKey::load_or_create(&config.data_dir.join("online-keys.seal"))?),
        enrolment: Arc::new(FailureLimiter::new(FAILED_ENROLMENTS)),
        streams: StreamPlaces::new(config.limits.streams, config.limits.streams_per_user),
        config: Arc::new(config),
        authority: Arc::new(authority),
        store,
        clock,
        downlink,
        metrics,
        standstill: jobs::Standstill::default(),
        closing,
    })
}

impl Ports {
    async fn bind(config: &Config) -> Result<Self, StartError> {
        Ok(Self {
            https: bind("https", config.https.listen).await?,
            device: bind("device", config.device.listen).await?,
            mqtt: bind("mqtt", config.mqtt.listen).await?,
        })
    }

    fn bound(&self, config: &Config) -> Result<Bound, StartError> {
        Ok(Bound {
            https: address("https", &self.https, config.https.listen)?,
            device: address("device", &self.device, config.device.listen)?,
            mqtt: address("mqtt", &self.mqtt, config.mqtt.listen)?,
        })
    }
}

impl PublicUrls {
    fn new(config: &Config, bound: Bound) -> Self {
        let or = |given: &Option<String>, scheme: &str, address: SocketAddr| {
            given.clone().unwrap_or_else(|| format!("{scheme}://localhost:{}", address.port()))
        };
        Self {
            https: or(&config.https.public_url, "https", bound.https),
            device: or(&config.device.public_url, "https", bound.device),
            mqtt: or(&config.mqtt.public_url, "mqtts", bound.mqtt),
        }
    }
}

async fn bind(port: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { port, address, source })
}

fn address(port: &'static str, tcp: &TcpListener, address: SocketAddr) -> Result<SocketAddr, StartError> {
    tcp.local_addr().map_err(|source| StartError::Bind { port, address, source })
}

fn make_folder(path: &std::path::Path) -> Result<(), StartError> {
    let mut builder = std::fs::DirBuilder::new();
    // Database, keys and the first password are for this user only.
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(|source| StartError::Folder { path: path.to_owned(), source })
}

/// Serves a router on a TLS port until shutdown; requests in flight may finish.
fn serve(
    supervisor: &mut Supervisor,
    port: &'static str,
    tcp: TcpListener,
    tls: &Arc<rustls::ServerConfig>,
    router: Router,
) {
    let listener = std::sync::Mutex::new(Some(TlsListener::new(tcp, tls.clone())));
    supervisor.spawn(port, OnEnd::StopServer, move |shutdown| {
        let listener = listener.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let router = router.clone();
        async move {
            listener.ok_or("the port is closed")?.serve(router, shutdown).await;
            Ok(())
        }
    });
}

fn spawn_job<F, Fut>(supervisor: &mut Supervisor, name: &'static str, state: &AppState, job: F)
where
    F: Fn(AppState, CancellationToken) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), crate::supervisor::TaskError>> + Send + 'static,
{
    let state = state.clone();
    supervisor.spawn(name, OnEnd::Restart, move |shutdown| job(state.clone(), shutdown));
}
