//! From the rest of the server to devices: the signed Desired and commands.
//!
//! Level-triggered: what is sent is read from the database at that moment, so a lost or repeated hint is harmless.

use std::sync::Arc;

use protocol::topic::{Channel, Topic};
use protocol::{DeviceId, ProjectId, encode_json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::broker::EmbeddedBroker;
use super::session::Outbound;
use crate::clock::Clock;
use crate::downlink::Request;
use crate::store::devices::Device;
use crate::store::{Store, StoreError, devices};
use crate::supervisor::with_causes;
use crate::tuf::SealKey;
use crate::tuf::director::{self, DirectorError};

pub(super) struct DownlinkTask {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) seal: Arc<SealKey>,
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

    async fn desired(
        &self,
        project: &ProjectId,
        device: &DeviceId,
    ) -> Result<Option<Outbound>, DirectorError> {
        let Some(mut row) = self.in_service(project, device).await? else { return Ok(None) };
        let now = self.clock.now();
        if director::needs_renewal(&row, now) {
            let mut tx = self.store.begin().await?;
            director::renew_if_needed(&mut tx, &self.seal, project, device, now).await?;
            tx.commit().await?;
            let Some(renewed) = self.in_service(project, device).await? else { return Ok(None) };
            row = renewed;
        }
        let topic = Topic::new(project.clone(), device.clone(), Channel::Desired);
        Ok(row.desired_envelope.map(|payload| Outbound { topic, payload }))
    }

    async fn in_service(&self, project: &ProjectId, device: &DeviceId) -> Result<Option<Device>, StoreError> {
        let row = devices::get(&mut *self.store.read().await?, project, device).await?;
        Ok(row.filter(|row| row.decommissioned_at.is_none()))
    }
}
