//! `flotilla-server`: REST API and console, rollouts, drift, the registry of signed releases, the embedded broker.
//!
//! [`app`] is the composition root and the only file that names every part. Handlers (`api`) extract, authorise,
//! call `domain` and map; only `store` knows SQL, only `link` knows MQTT, and the server never holds a key that
//! could make a device run what a publisher did not sign. Tests of the whole stand in `tests/`.

pub mod api;
pub mod app;
pub mod backup;
pub mod blobs;
pub mod bus;
pub mod clock;
pub mod config;
pub mod domain;
pub mod downlink;
pub mod exit;
pub mod ids;
pub mod jobs;
pub mod link;
pub mod listener;
pub mod metrics;
pub mod pki;
pub mod store;
pub mod supervisor;
pub mod tuf;
