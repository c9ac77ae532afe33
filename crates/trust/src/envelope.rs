//! The envelope of all signed metadata, and the one function that counts signatures.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::error::{Cause, SIGNATURES, shown};
use crate::json::Json;
use crate::key::{KeyId, PublicKey};
use crate::limits::Limits;

/// The keys that may sign for a role and how many of them must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet {
    keys: BTreeMap<KeyId, PublicKey>,
    threshold: usize,
}

impl KeySet {
    /// From keys under their own ids.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>, threshold: usize) -> Self {
        Self { keys: keys.into_iter().map(|key| (key.id(), key)).collect(), threshold }
    }

    pub(crate) fn from_listed(keys: BTreeMap<KeyId, PublicKey>, threshold: usize) -> Self {
        Self { keys, threshold }
    }

    /// Whether one of these keys is not among `next`, under whatever id.
    pub(crate) fn loses_a_key(&self, next: &Self) -> bool {
        self.keys.values().any(|key| !next.keys.values().any(|other| other.is_same(key)))
    }

    /// The keys with the ids that they are listed under.
    pub fn keys(&self) -> &BTreeMap<KeyId, PublicKey> {
        &self.keys
    }

    /// How many distinct keys must sign.
    pub fn threshold(&self) -> usize {
        self.threshold
    }
}

/// `{"signed": {...}, "signatures": [{"keyid", "sig"}]}`, parsed but not trusted.
#[derive(Debug, Clone)]
pub struct Envelope {
    signed: Json,
    message: Vec<u8>,
    signatures: Vec<(KeyId, Vec<u8>)>,
}

#[derive(Deserialize)]
struct RawSignature {
    keyid: KeyId,
    sig: String,
}

impl Envelope {
    /// Parses bytes. Nothing in the result may be believed before [`Envelope::verify`].
    ///
    /// # Errors
    /// [`Cause`] when they are no bounded JSON of this form.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, Cause> {
        let json = Json::parse(bytes, limits.json_depth).map_err(Cause::Json)?;
        let missing = |what: &str| Cause::Field(format!("the envelope has no {what}"));
        let signed = json.get("signed").ok_or_else(|| missing("signed"))?.clone();
        let list = json.get("signatures").ok_or_else(|| missing("signatures"))?.to_value();
        let raw: Vec<RawSignature> = serde_json::from_value(list).map_err(Cause::Format)?;
        if raw.len() > limits.signatures {
            return Err(Cause::TooMany { what: SIGNATURES, max: limits.signatures });
        }
        // 4.2: several signatures under one id are not allowed. They could not help (attack A2), only hide.
        let mut ids = BTreeSet::new();
        if let Some(twice) = raw.iter().find(|signature| !ids.insert(&signature.keyid)) {
            return Err(Cause::SignedTwice { key: twice.keyid.clone() });
        }
        let signatures = raw
            .into_iter()
            // A signature that is no hex is one that doesn't count; others may still be enough.
            .map(|s| (s.keyid, hex::decode(s.sig).unwrap_or_default()))
            .collect();
        Ok(Self { message: signed.canonical(), signed, signatures })
    }

    /// THE check of signatures, for every role and every path: at least `threshold` distinct keys of the set
    /// have signed. A bad signature beside enough good ones does no harm; a key counts once, however often it
    /// is listed or signs.
    ///
    /// # Errors
    /// [`Cause::Threshold`] with the reason for each signature that did not count.
    pub fn verify(&self, keys: &KeySet) -> Result<(), Cause> {
        let mut identities = BTreeSet::new();
        let mut reasons = Vec::new();
        for (id, signature) in &self.signatures {
            match self.check_one(keys, id, signature) {
                Ok(identity) if identities.contains(&identity) => {
                    reasons.push(format!("key {} signed under another id too", short(id)));
                }
                Ok(identity) => {
                    identities.insert(identity);
                }
                Err(reason) => reasons.push(format!("key {}: {reason}", short(id))),
            }
        }
        if keys.threshold > 0 && identities.len() >= keys.threshold {
            return Ok(());
        }
        let reasons = if reasons.is_empty() { "no other signature".into() } else { reasons.join("; ") };
        Err(Cause::Threshold { valid: identities.len(), threshold: keys.threshold, reasons })
    }

    fn check_one(&self, keys: &KeySet, id: &KeyId, signature: &[u8]) -> Result<Vec<u8>, String> {
        let key = keys.keys.get(id).ok_or("not a key of this role")?;
        let verifier = key.verifier().map_err(|e| e.to_string())?;
        if verifier.verifies(&self.message, signature) {
            Ok(verifier.identity())
        } else {
            Err("bad signature".into())
        }
    }

    /// Ids of the keys that claim to have signed.
    pub fn signers(&self) -> impl Iterator<Item = &KeyId> {
        self.signatures.iter().map(|(id, _)| id)
    }

    /// Ids of those keys of the set whose signature is valid.
    pub(crate) fn valid_signers(&self, keys: &KeySet) -> BTreeSet<KeyId> {
        let valid = self.signatures.iter().filter(|(id, sig)| self.check_one(keys, id, sig).is_ok());
        valid.map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn signed(&self) -> &Json {
        &self.signed
    }

    #[cfg(feature = "sign")]
    pub(crate) fn unsigned(signed: Json) -> Self {
        Self { message: signed.canonical(), signed, signatures: Vec::new() }
    }

    /// Adds this signer's signature, in place of an earlier one of the same key.
    #[cfg(feature = "sign")]
    pub(crate) fn add_signature(
        &mut self,
        signer: &dyn crate::key::Signer,
    ) -> Result<(), crate::key::SignError> {
        let id = signer.public_key().id();
        let signature = signer.sign(&self.message)?;
        self.signatures.retain(|(other, _)| *other != id);
        self.signatures.push((id, signature));
        Ok(())
    }

    /// Whether signatures on one are signatures on the other.
    #[cfg(feature = "sign")]
    pub(crate) fn signs_the_same(&self, other: &Self) -> bool {
        self.message == other.message
    }

    /// Takes what another envelope has under this id, in place of an earlier signature of the same id.
    #[cfg(feature = "sign")]
    pub(crate) fn take_signature(&mut self, other: &Self, id: &KeyId) {
        self.signatures.retain(|(own, _)| own != id);
        self.signatures.extend(other.signatures.iter().filter(|(theirs, _)| theirs == id).cloned());
    }

    #[cfg(feature = "sign")]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let signatures: Vec<_> = self
            .signatures
            .iter()
            .map(|(id, sig)| serde_json::json!({"keyid": id, "sig": hex::encode(sig)}))
            .collect();
        let value = serde_json::json!({"signatures": signatures, "signed": self.signed.to_value()});
        let mut bytes = serde_json::to_vec_pretty(&value).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

fn short(id: &KeyId) -> String {
    shown(&id.as_str().chars().take(8).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_ids_of_foreign_signatures_move_no_terminal() {
        let bytes = br#"{"signed":{},"signatures":[{"keyid":"\u001b]0;pwned\u0007","sig":"00"}]}"#;
        let envelope = Envelope::parse(bytes, &Limits::default()).unwrap();
        let refusal = envelope.verify(&KeySet::new([], 1)).unwrap_err().to_string();
        assert!(refusal.contains("]0;p") && !refusal.contains(char::is_control), "{refusal:?}");
    }
}
