//! The agent: runs signed models on one device and keeps them trustworthy there.
//!
//! One composition root ([`app`]) names every part; the parts meet only through the small handles that it gives
//! them. What can't be rebuilt lives in small synced files ([`durable`]), never in the spool's database.

pub mod app;
pub mod args;
pub mod batch;
pub mod commands;
pub mod config;
pub mod doctor;
pub mod durable;
pub mod exit;
pub mod health;
pub mod inputs;
pub mod link;
pub mod monitor;
pub mod owner;
pub mod picture;
pub mod retry;
pub mod serve;
pub mod slots;
pub mod status;
pub mod store;
pub mod update;

/// An error with all of its sources, once each, as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
