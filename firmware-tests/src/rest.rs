//! The server's REST API as the rig's admin, for what the command line does not show.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The admin of a rig's fleet.
pub(crate) struct Rest {
    agent: ureq::Agent,
    base: String,
    bearer: String,
}

impl Rest {
    /// Signed in as the publisher whose files lie in a fleet's folder.
    pub(crate) fn open(fleet: &Path) -> Result<Self> {
        let login = fleet.join("publisher/flotilla/login.json");
        let login: Value =
            serde_json::from_slice(&std::fs::read(&login)?).context("the login can't be read")?;
        let text = |key: &str| login[key].as_str().with_context(|| format!("the login holds no {key}"));
        let ca = ureq::tls::Certificate::from_pem(text("ca")?.as_bytes())?;
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::new_with_certs(&[ca]))
            .unversioned_rustls_crypto_provider(rustls::crypto::ring::default_provider().into())
            .build();
        let agent = ureq::Agent::config_builder().tls_config(tls).build().into();
        let base = format!("{}/api/v1/projects/{}", text("server")?, text("project")?);
        Ok(Self { agent, base, bearer: format!("Bearer {}", text("token")?) })
    }

    /// What lies at `path`, which begins with a slash and is below the project.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let url = format!("{}{path}", self.base);
        let mut answer = self.agent.get(&url).header("authorization", &self.bearer).call()?;
        Ok(answer.body_mut().read_json()?)
    }

    /// Posts to the same.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}{path}", self.base);
        let mut answer = self.agent.post(&url).header("authorization", &self.bearer).send_json(body)?;
        Ok(answer.body_mut().read_json()?)
    }

    /// All pages of the list at `path`.
    pub(crate) fn all(&self, path: &str) -> Result<Vec<Value>> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("{path}?limit=200{cursor}"))?;
            all.extend(page["items"].as_array().context("no list")?.iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(all),
            }
        }
    }
}
