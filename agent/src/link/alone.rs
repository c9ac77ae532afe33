//! For tests of other parts: a device's links with nobody at their other end.

use super::Links;
use super::identity::tests::identity_with;
use crate::config::RawConfig;
use crate::health::Clock;

pub(crate) fn links(clock: &Clock) -> Links {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
    let config = RawConfig::default().check().unwrap();
    let identity = identity_with(&key, certificate.clone(), certificate);
    Links::new(identity, clock, crate::app::terms(&config.link)).unwrap()
}
