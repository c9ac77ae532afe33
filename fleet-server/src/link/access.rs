//! Who may do what on the embedded broker: one authority per connection, made from its certificate.
//!
//! The rules themselves are the pure functions of [`protocol::topic`], so that any broker can be driven by them.

use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::Pin;

use mqtt5::broker::{AuthProvider, AuthResult};
use mqtt5::error::Result;
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use protocol::topic::{client_id, device_may_publish, device_may_subscribe};
use protocol::{DeviceId, ProjectId, text};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tracing::debug;

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// User name of the server's own client.
pub(super) const SERVER_USER: &str = "fleet-server";

/// Longest part of a refused topic that is told, in bytes.
const TOLD_BYTES: usize = 200;

/// A device that reached for a topic that isn't its own.
pub(super) struct Reach {
    pub(super) project: ProjectId,
    pub(super) device: DeviceId,
    /// Where it wanted to publish or subscribe, cut.
    pub(super) topic: String,
}

/// A device's connection: it is this device and nobody else.
pub(super) struct DeviceAccess {
    project: ProjectId,
    device: DeviceId,
    reaches: mpsc::Sender<Reach>,
}

impl DeviceAccess {
    /// Refused topics are told to `reaches`.
    pub(super) fn new(project: ProjectId, device: DeviceId, reaches: mpsc::Sender<Reach>) -> Self {
        Self { project, device, reaches }
    }

    fn told(&self, is_allowed: bool, topic: &str) -> bool {
        if !is_allowed {
            let (project, device) = (self.project.clone(), self.device.clone());
            let topic = text::one_line(topic, TOLD_BYTES);
            // When nobody keeps up, one like it has just been told.
            let _ = self.reaches.try_send(Reach { project, device, topic });
        }
        is_allowed
    }
}

impl AuthProvider for DeviceAccess {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        _: SocketAddr,
    ) -> Answer<'a, Result<AuthResult>> {
        let expected = client_id(&self.project, &self.device);
        let result = if connect.client_id == expected {
            AuthResult::success_with_user(expected)
        } else {
            debug!(project = %self.project, device = %self.device, "client id {:?} refused", connect.client_id);
            AuthResult::fail_with_reason(
                ReasonCode::ClientIdentifierNotValid,
                format!("client id must be {expected}"),
            )
        };
        Box::pin(ready(Ok(result)))
    }

    fn authorize_publish<'a>(&'a self, _: &str, _: Option<&'a str>, topic: &'a str) -> Answer<'a, bool> {
        Box::pin(ready(self.told(device_may_publish(&self.project, &self.device, topic), topic)))
    }

    fn authorize_subscribe<'a>(&'a self, _: &str, _: Option<&'a str>, filter: &'a str) -> Answer<'a, bool> {
        Box::pin(ready(self.told(device_may_subscribe(&self.project, &self.device, filter), filter)))
    }
}

/// The loopback listener: only the process that made the token gets in, and it may do everything.
pub(super) struct ServerAccess {
    token_sha256: [u8; 32],
}

impl ServerAccess {
    pub(super) fn new(token: &str) -> Self {
        Self { token_sha256: Sha256::digest(token.as_bytes()).into() }
    }

    /// Compares hashes, so that the time that it takes says nothing about the token.
    fn is_server(&self, connect: &ConnectPacket) -> bool {
        let given: [u8; 32] = Sha256::digest(connect.password.as_deref().unwrap_or_default()).into();
        connect.username.as_deref() == Some(SERVER_USER) && given == self.token_sha256
    }
}

impl AuthProvider for ServerAccess {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        from: SocketAddr,
    ) -> Answer<'a, Result<AuthResult>> {
        let result = if from.ip().is_loopback() && self.is_server(connect) {
            AuthResult::success_with_user(SERVER_USER)
        } else {
            AuthResult::fail(ReasonCode::NotAuthorized)
        };
        Box::pin(ready(Ok(result)))
    }

    fn authorize_publish<'a>(&'a self, _: &str, user: Option<&'a str>, _: &'a str) -> Answer<'a, bool> {
        Box::pin(ready(user == Some(SERVER_USER)))
    }

    fn authorize_subscribe<'a>(&'a self, _: &str, user: Option<&'a str>, _: &'a str) -> Answer<'a, bool> {
        Box::pin(ready(user == Some(SERVER_USER)))
    }
}
