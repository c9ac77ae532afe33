//! Puts the link together and gives its tasks to the supervisor.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, watch};

use super::broker::{BrokerError, Door, EmbeddedBroker};
use super::budget::Budgets;
use super::counters::LinkCounters;
use super::downlink::DownlinkTask;
use super::gate::{Gate, Refusal};
use super::ingest::{Ingest, IsConnected, Spread, TaskHook};
use super::session::{INBOUND, Session, Upstream};
use crate::app::AppState;
use crate::downlink::Request;
use crate::pki::DeviceIdentity;
use crate::store::{Store, certificates, devices};
use crate::supervisor::{OnEnd, Supervisor};

/// Messages on their way to devices. When full, Desired hints and acknowledgements are dropped: both are repeated.
const OUTBOUND: usize = 8192;
/// Refused topics that wait to be noted.
const REACHES: usize = 64;
/// Connections that the embedded broker holds at most.
const MAX_CONNECTIONS: usize = 100_000;

/// Devices that would be back within this anyway are asked for nothing.
const SHORTEST_SPREAD: Duration = Duration::from_secs(5);
/// Nobody is kept away longer, however many there are.
const LONGEST_SPREAD: Duration = Duration::from_hours(1);

/// What the link takes over.
pub struct LinkIo {
    /// The bound MQTT port; `None` when an external broker serves the devices.
    pub listener: Option<TcpListener>,
    /// TLS that asks for a device certificate.
    pub tls: Arc<ServerConfig>,
    /// Which broker the server uses; `None` for the embedded one.
    pub external: Option<Upstream>,
    /// What the rest of the server wants to send.
    pub requests: mpsc::Receiver<Request>,
    /// Told of every stored task report.
    pub on_task: TaskHook,
}

/// The running link.
#[derive(Clone)]
pub struct Link {
    broker: Option<EmbeddedBroker>,
    is_ready: watch::Receiver<bool>,
}

impl Link {
    /// Prepares everything and spawns the link's tasks.
    ///
    /// # Errors
    /// [`BrokerError`] when the embedded broker can't be set up.
    pub async fn start(
        state: &AppState,
        io: LinkIo,
        supervisor: &mut Supervisor,
    ) -> Result<Self, BrokerError> {
        let counters = LinkCounters::new(&state.metrics);
        let (inbound_sender, inbound) = mpsc::channel(INBOUND);
        let (outbound, outbound_receiver) = mpsc::channel(OUTBOUND);
        let (reaches_sender, reaches) = mpsc::channel(REACHES);
        let (ready_sender, is_ready) = watch::channel(false);
        let LinkIo { listener, tls, external, requests, on_task } = io;
        let (upstream, broker) = if let Some(upstream) = external {
            (upstream, None)
        } else {
            let gate: Arc<dyn Gate> = Arc::new(StoreGate::new(state.store.clone(), counters.clone()));
            let (clock, is_heard) = (state.clock.clone(), is_ready.clone());
            let reaches = reaches_sender;
            let door = listener.map(|listener| Door { listener, tls, gate, clock, is_heard, reaches });
            let broker = embed(door, supervisor).await?;
            let (address, token) = (broker.loopback(), broker.token().to_owned());
            (Upstream::Loopback { address, token }, Some(broker))
        };
        let session = Session {
            upstream,
            inbound: inbound_sender,
            outbound: outbound_receiver,
            is_ready: ready_sender,
            counters: counters.clone(),
        };
        let ingest = Ingest {
            store: state.store.clone(),
            clock: state.clock.clone(),
            bus: state.bus.clone(),
            downlink: state.downlink.clone(),
            counters,
            inbound,
            reaches,
            outbound: outbound.clone(),
            on_task,
            is_connected: is_connected(broker.clone()),
            spread: spread(broker.clone(), state.config.mqtt.reconnect_gap),
            noted: HashMap::new(),
            budgets: Budgets::new(state.config.limits.device_bytes_per_hour),
        };
        let downlink = DownlinkTask {
            store: state.store.clone(),
            clock: state.clock.clone(),
            seal: state.seal.clone(),
            requests,
            outbound,
            broker: broker.clone(),
        };
        spawn(supervisor, "mqtt session", session, |mut task, shutdown| {
            Box::pin(async move { task.run(shutdown).await })
        });
        spawn(supervisor, "ingest", ingest, |mut task, shutdown| {
            Box::pin(async move { task.run(shutdown).await })
        });
        spawn(supervisor, "downlink", downlink, |mut task, shutdown| {
            Box::pin(async move { task.run(shutdown).await })
        });
        Ok(Self { broker, is_ready })
    }

    /// Whether the server's own session is up and subscribed.
    pub fn is_ready(&self) -> bool {
        *self.is_ready.borrow()
    }

    /// Waits until the session is up and subscribed.
    pub async fn ready(&mut self) {
        // An error means that the session task is gone, which is shutdown.
        let _ = self.is_ready.wait_for(|ready| *ready).await;
    }

    /// Devices connected to the embedded broker.
    pub fn connected(&self) -> usize {
        self.broker.as_ref().map_or(0, EmbeddedBroker::connected)
    }
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a task that owns its channels: after a panic it goes on with the same ones.
fn spawn<T: Send + 'static>(
    supervisor: &mut Supervisor,
    name: &'static str,
    task: T,
    run: fn(tokio::sync::OwnedMutexGuard<T>, tokio_util::sync::CancellationToken) -> Running,
) {
    let task = Arc::new(Mutex::new(task));
    supervisor.spawn(name, OnEnd::Restart, move |shutdown| {
        let task = Arc::clone(&task);
        async move {
            run(task.lock_owned().await, shutdown).await;
            Ok(())
        }
    });
}

async fn embed(door: Option<Door>, supervisor: &mut Supervisor) -> Result<EmbeddedBroker, BrokerError> {
    let (broker, running) = EmbeddedBroker::new(MAX_CONNECTIONS).await?;
    let running = std::sync::Mutex::new(Some(running));
    supervisor.spawn("embedded broker", OnEnd::StopServer, move |shutdown| {
        let running = running.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        async move {
            let running = running.ok_or("the broker runs only once")?;
            Ok(running.run(shutdown).await?)
        }
    });
    let (front, door) = (broker.clone(), std::sync::Mutex::new(door));
    supervisor.spawn("mqtt", OnEnd::StopServer, move |shutdown| {
        let door = door.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let front = front.clone();
        async move {
            front.serve(door.ok_or("the MQTT port is closed")?, shutdown).await;
            Ok(())
        }
    });
    Ok(broker)
}

fn is_connected(broker: Option<EmbeddedBroker>) -> IsConnected {
    Arc::new(move |project, device| {
        broker.as_ref().is_some_and(|broker| broker.is_connected(project, device))
    })
}

/// With an external broker nobody here knows how many devices are connected: its own admission has to serve.
fn spread(broker: Option<EmbeddedBroker>, gap: Option<Duration>) -> Spread {
    Arc::new(move || spread_s(broker.as_ref()?.connected(), gap?))
}

/// Over how many seconds `connected` devices should come back, with `gap` for each; none where devices' own jitter
/// does.
fn spread_s(connected: usize, gap: Duration) -> Option<u32> {
    let all = gap.saturating_mul(u32::try_from(connected).unwrap_or(u32::MAX));
    let seconds = all.min(LONGEST_SPREAD).as_secs();
    u32::try_from(seconds).ok().filter(|_| all >= SHORTEST_SPREAD)
}

/// The gate that asks the database.
#[derive(Clone)]
pub struct StoreGate {
    store: Store,
    counters: LinkCounters,
}

impl StoreGate {
    /// A gate over this database.
    pub fn new(store: Store, counters: LinkCounters) -> Self {
        Self { store, counters }
    }

    async fn check(&self, identity: &DeviceIdentity) -> Result<(), Refusal> {
        let DeviceIdentity { project, device, serial, .. } = identity;
        let mut conn = self.store.read().await.map_err(Refusal::Store)?;
        let standing = certificates::standing(&mut conn, project, device).await.map_err(Refusal::Store)?;
        let standing = standing.ok_or(Refusal::UnknownDevice)?;
        if standing.is_decommissioned {
            return Err(Refusal::Decommissioned);
        }
        if standing.serial == *serial {
            return Ok(());
        }
        if standing.next_serial.as_deref() != Some(serial) {
            return Err(Refusal::Superseded);
        }
        drop(conn);
        let promoted = async {
            let mut tx = self.store.begin().await?;
            certificates::promote(&mut tx, project, device, serial).await?;
            tx.commit().await
        };
        promoted.await.map_err(Refusal::Store)
    }
}

impl Gate for StoreGate {
    fn admit<'a>(
        &'a self,
        identity: &'a DeviceIdentity,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>> {
        Box::pin(self.check(identity))
    }

    fn refused(&self, refusal: &Refusal) {
        self.counters.refuse(refusal.code());
    }
}

/// Nobody is connected to an embedded broker that has just started; with an external one the retained status says.
///
/// # Errors
/// When the database refuses.
pub async fn forget_connections(store: &Store) -> Result<(), crate::store::StoreError> {
    let mut tx = store.begin().await?;
    devices::set_all_offline(&mut tx).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_devices_spread_and_few_come_at_once() {
        let gap = Duration::from_millis(5);
        assert_eq!([0, 1, 999].map(|connected| spread_s(connected, gap)), [None; 3]);
        assert_eq!([1000, 20_000].map(|connected| spread_s(connected, gap)), [Some(5), Some(100)]);
        assert_eq!(spread_s(usize::MAX, gap), Some(3600));
    }
}
