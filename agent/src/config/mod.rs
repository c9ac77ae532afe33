//! Configuration: TOML file, then environment (`FLOTILLA_*`), then flags (`--set key=value`); later wins.
//!
//! Two stages: [`RawConfig`] collects values with their origin, [`Config`] is valid by type. All errors are
//! reported together with file, key, value and what was expected; unknown keys are errors. Each part of the
//! agent owns one section struct; nobody but `app` receives the whole.

mod capture;
mod filter;
mod inputs;
mod links;
mod proxy;
mod raw;
mod reader;
mod sections;
mod spool;

pub use capture::{Capture, Rate};
pub use inputs::{Folder, Mqtt};
pub use proxy::{Exception, NoProxy, Proxies, Proxy};
pub use raw::{Origin, RawConfig};
pub use reader::{ConfigErrors, Problem};
pub use sections::{Config, DEFAULT_STATE_DIR, Device, Health, Link, Log, Monitor, Serve, Update};
pub use spool::Spool;

#[cfg(test)]
mod tests;
