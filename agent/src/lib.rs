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
pub mod machine;
pub mod monitor;
pub mod owner;
pub mod picture;
pub mod retry;
pub mod serve;
pub mod shown;
pub mod slots;
pub mod status;
pub mod store;
pub mod trusted_files;
pub mod update;

/// An error with all of its sources, once each, as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut last = error.to_string();
    let mut text = last.clone();
    let mut source = error.source();
    while let Some(inner) = source {
        let said = inner.to_string();
        // A wrapper often says no more than what it wraps.
        if said != last {
            text = format!("{text}: {said}");
            last = said;
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::chain;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Said {
        said: &'static str,
        source: Option<Box<Said>>,
    }

    #[test]
    fn what_a_wrapper_says_again_is_said_once() {
        let inner = Said { said: "invalid chunk", source: None };
        let wrapped = Said { said: "the body broke", source: Some(Box::new(inner)) };
        let twice = Said { said: "the body broke", source: Some(Box::new(wrapped)) };
        assert_eq!(chain(&twice), "the body broke: invalid chunk");
    }
}
