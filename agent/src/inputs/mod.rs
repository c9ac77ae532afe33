//! Inputs that the configuration declares, for applications that speak no HTTP: a watched folder and a topic of a
//! local broker. Each request goes the local API's own way, so that it is bounded and counted like any other; an
//! answer is the protocol's JSON, and so is a refusal. docs/LOCAL-API.md.

mod broker;
mod files;
mod folder;
mod troubles;

pub use broker::listen;
pub use folder::watch;
pub use troubles::Troubles;
