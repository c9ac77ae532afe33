//! Certificate requests from devices: only the public key is taken from them.

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::PkiError;

/// Longest request in bytes; a P-256 request has under 500.
const MAX_CSR_BYTES: usize = 8 * 1024;

/// A device's public key whose private key the requester has proved to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKey {
    point: Vec<u8>,
    is_ed25519: bool,
}

impl DeviceKey {
    /// Parses a PEM certificate request and checks its proof of possession. Its names and extensions are ignored.
    ///
    /// # Errors
    /// [`PkiError::BadCsr`] when it is no request, is signed by another key, or the key is neither P-256 nor ed25519.
    pub fn from_csr_pem(pem: &str) -> Result<Self, PkiError> {
        if pem.len() > MAX_CSR_BYTES {
            return Err(PkiError::BadCsr("it is too large"));
        }
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .map_err(|_| PkiError::BadCsr("it is not PEM"))?;
        if block.label != "CERTIFICATE REQUEST" && block.label != "NEW CERTIFICATE REQUEST" {
            return Err(PkiError::BadCsr("the PEM block is not a CERTIFICATE REQUEST"));
        }
        let (rest, csr) = X509CertificationRequest::from_der(&block.contents)
            .map_err(|_| PkiError::BadCsr("it is not a PKCS #10 request"))?;
        if !rest.is_empty() {
            return Err(PkiError::BadCsr("bytes follow the request"));
        }
        csr.verify_signature().map_err(|_| PkiError::BadCsr("it is not signed by the key that it names"))?;
        Self::from_spki(&csr.certification_request_info.subject_pki)
    }

    fn from_spki(spki: &SubjectPublicKeyInfo<'_>) -> Result<Self, PkiError> {
        let point = spki.subject_public_key.data.to_vec();
        let curve = spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        if spki.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256) {
            return Ok(Self { point, is_ed25519: false });
        }
        if spki.algorithm.algorithm == OID_SIG_ED25519 {
            return Ok(Self { point, is_ed25519: true });
        }
        Err(PkiError::BadCsr("the key must be ECDSA P-256 or ed25519"))
    }
}

impl PublicKeyData for DeviceKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        if self.is_ed25519 { &PKCS_ED25519 } else { &PKCS_ECDSA_P256_SHA256 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};

    fn csr(key: &KeyPair) -> String {
        CertificateParams::new(vec!["liar.example".into()])
            .unwrap()
            .serialize_request(key)
            .unwrap()
            .pem()
            .unwrap()
    }

    #[test]
    fn p256_and_ed25519_requests_are_taken() {
        for alg in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
            let key = KeyPair::generate_for(alg).unwrap();
            let taken = DeviceKey::from_csr_pem(&csr(&key)).unwrap();
            assert_eq!(taken.subject_public_key_info(), key.subject_public_key_info());
        }
    }

    #[test]
    fn a_request_without_proof_of_possession_is_refused() {
        let key = KeyPair::generate().unwrap();
        let pem = csr(&key);
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let mut der = block.contents;
        let last = der.len() - 1;
        der[last] ^= 1;
        let b64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
        let forged =
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{b64}\n-----END CERTIFICATE REQUEST-----\n");
        assert!(matches!(DeviceKey::from_csr_pem(&forged), Err(PkiError::BadCsr(_))));
    }

    #[test]
    fn other_keys_and_garbage_are_refused() {
        let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let large = "x".repeat(MAX_CSR_BYTES + 1);
        let certificate = csr(&KeyPair::generate().unwrap()).replace("CERTIFICATE REQUEST", "CERTIFICATE");
        for bad in ["", "garbage", large.as_str(), certificate.as_str(), csr(&other).as_str()] {
            assert!(matches!(DeviceKey::from_csr_pem(bad), Err(PkiError::BadCsr(_))));
        }
    }
}
