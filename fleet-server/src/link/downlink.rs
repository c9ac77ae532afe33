//! From the rest of the server to devices: the signed Desired and commands.
//!
//! Level-triggered: what is sent is read from the database at that moment, so a lost or repeated hint is harmless.

use protocol::topic::{Channel, Topic};
use protocol::{DeviceId, ProjectId, encode_json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::broker::EmbeddedBroker;
use super::session::Outbound;
use crate::downlink::Request;
use crate::store::{Store, StoreError, devices};
use crate::supervisor::with_causes;

pub(super) struct DownlinkTask {
    pub(super) store: Store,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) outbound: mpsc::Sender<Outbound>,
    pub(super) broker: Option<EmbeddedBroker>,
}

impl DownlinkTask {
    pub(super) async fn run(&mut self, shutdown: CancellationToken) {
        loop {
            let request = tokio::select! {
                () = shutdown.cancelled() => return,
                request = self.requests.recv() => request,
            };
            let Some(request) = request else { return };
            self.send(request).await;
        }
    }

    async fn send(&self, request: Request) {
        let outbound = match request {
            Request::Command { project, device, command } => Some(Outbound {
                topic: Topic::new(project, device, Channel::Command),
                payload: encode_json(&command),
            }),
            Request::Disconnect { project, device } => {
                if let Some(broker) = &self.broker {
                    broker.disconnect(&project, &device);
                }
                None
            }
            Request::Desired { project, device } => match self.desired(&project, &device).await {
                Ok(outbound) => outbound,
                Err(e) => {
                    // The device's next hello brings it up again.
                    warn!(%project, %device, "Desired can't be read: {}", with_causes(&e));
                    None
                }
            },
        };
        if let Some(outbound) = outbound
            && self.outbound.try_send(outbound).is_err()
        {
            debug!("a message to a device was dropped: the broker doesn't keep up");
        }
    }

    async fn desired(&self, project: &ProjectId, device: &DeviceId) -> Result<Option<Outbound>, StoreError> {
        let mut conn = self.store.read().await?;
        let Some(row) = devices::get(&mut conn, project, device).await? else { return Ok(None) };
        let topic = Topic::new(project.clone(), device.clone(), Channel::Desired);
        let envelope = row.desired_envelope.filter(|_| row.decommissioned_at.is_none());
        Ok(envelope.map(|payload| Outbound { topic, payload }))
    }
}
