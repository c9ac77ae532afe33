//! The text of an enrolment token: all that an agent needs to find and trust its fleet.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use protocol::{Digest, ProjectId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const PREFIX: &str = "flt1.";

/// What stands in a token. The secret is kept nowhere else; the server stores only its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenText {
    /// Where to enrol: `https://host:8443`.
    #[serde(rename = "u")]
    pub url: String,
    /// Base64 of the CA certificate's DER: the agent trusts this server and no other.
    #[serde(rename = "c")]
    pub ca: String,
    /// Tenant.
    #[serde(rename = "p")]
    pub project: ProjectId,
    /// Base64url of the 32-byte secret.
    #[serde(rename = "s")]
    pub secret: String,
    /// SHA-256 of the project's `root.json`, when there is one: the agent's first root is pinned to it.
    #[serde(rename = "r", skip_serializing_if = "Option::is_none", default)]
    pub root: Option<Digest>,
}

impl TokenText {
    /// A token with a new random secret.
    pub fn generate(url: String, ca_der: &[u8], project: ProjectId, root: Option<Digest>) -> Self {
        let secret = URL_SAFE_NO_PAD.encode(crate::ids::random_bytes::<32>());
        Self { url, ca: STANDARD.encode(ca_der), project, secret, root }
    }

    /// The text to hand to a device.
    pub fn to_text(&self) -> String {
        let json = serde_json::to_vec(self).expect("a token has only string fields");
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// Reads a token's text.
    pub fn parse(text: &str) -> Option<Self> {
        let json = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        serde_json::from_slice(&json).ok()
    }
}

/// What the server stores of a secret: it finds the row by this hash, so no comparison leaks time.
pub fn secret_hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_secrets_differ() {
        let project = ProjectId::new("acme").unwrap();
        let make = || TokenText::generate("https://h:8443".into(), b"der", project.clone(), None);
        let token = make();
        assert_eq!(TokenText::parse(&token.to_text()).unwrap(), token);
        assert_ne!(make().secret, token.secret);
        assert!(TokenText::parse("flt1.!!").is_none() && TokenText::parse("flt2.e30").is_none());
    }
}
