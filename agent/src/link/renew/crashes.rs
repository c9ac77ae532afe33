//! Renewal that is cut off at each of its steps: by a kill before or after the server heard of it, by an answer that
//! got lost, by a disk that takes no write. Afterwards the server must let in what the device comes back with.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::StatusCode;

use super::super::identity::tests::identity_with;
use super::*;
use crate::config::Proxies;
use crate::link::http::MaxRate;

/// Where the attempt is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Nowhere,
    BeforeTheServerRenews,
    AfterTheServerRenewed,
    WhereTheNewOneIsKept,
    BeforeTheTrial,
    AfterTheTrial,
    WhereTheNewOneTakesItsPlace,
}

const CUTS: [Cut; 7] = [
    Cut::Nowhere,
    Cut::BeforeTheServerRenews,
    Cut::AfterTheServerRenewed,
    Cut::WhereTheNewOneIsKept,
    Cut::BeforeTheTrial,
    Cut::AfterTheTrial,
    Cut::WhereTheNewOneTakesItsPlace,
];

/// The server's two certificates of the device, as the fleet's server keeps them.
struct Server {
    state_dir: std::path::PathBuf,
    cut: Mutex<Cut>,
    known: Mutex<Known>,
}

struct Known {
    current: String,
    next: Option<String>,
}

impl Server {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cuts(&self, here: Cut) -> Result<(), FetchError> {
        let is_here = *self.cut.lock().unwrap() == here;
        let why = format!("{here:?}");
        if is_here { Err(FetchError::Network { url: "u".into(), why }) } else { Ok(()) }
    }

    /// The first use of the next certificate retires the current one.
    fn admit(&self, certificate: &str) -> Result<(), FetchError> {
        let mut known = self.known();
        if known.next.as_deref() == Some(certificate) {
            known.current = certificate.to_owned();
            known.next = None;
        }
        if known.current == certificate {
            return Ok(());
        }
        let text = r#"{"error":{"code":"superseded","message":"Refused."}}"#.to_owned();
        Err(FetchError::Status { url: "u".into(), status: StatusCode::FORBIDDEN, text })
    }
}

impl Port for Server {
    async fn renew(&self, links: &Links, key: &rcgen::KeyPair) -> Result<Answer, RenewError> {
        self.cuts(Cut::BeforeTheServerRenews).map_err(RenewError::Fetch)?;
        self.admit(&links.identity.certificate).map_err(RenewError::Fetch)?;
        let certificate = certificate(key, 2096);
        self.known().next = Some(certificate.clone());
        self.cuts(Cut::AfterTheServerRenewed).map_err(RenewError::Fetch)?;
        if self.cuts(Cut::WhereTheNewOneIsKept).is_err() {
            block(&self.state_dir.join("identity.next.tmp"));
        }
        Ok(Answer { ca: certificate.clone(), certificate })
    }

    async fn trial(&self, renewed: &Links) -> Result<(), FetchError> {
        self.cuts(Cut::BeforeTheTrial)?;
        self.admit(&renewed.identity.certificate)?;
        self.cuts(Cut::AfterTheTrial)?;
        if self.cuts(Cut::WhereTheNewOneTakesItsPlace).is_err() {
            let file = self.state_dir.join("identity.json");
            std::fs::rename(&file, self.state_dir.join("aside")).unwrap();
            block(&file);
        }
        Ok(())
    }
}

/// Nothing can be written or renamed to where a folder stands.
fn block(path: &Path) {
    std::fs::create_dir_all(path.join("in the way")).unwrap();
}

fn unblock(state_dir: &Path) {
    let file = state_dir.join("identity.json");
    for path in [&file, &state_dir.join("identity.next.tmp")] {
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
    if state_dir.join("aside").exists() {
        std::fs::rename(state_dir.join("aside"), file).unwrap();
    }
}

/// One that has begun long ago and ends in `year`.
fn certificate(key: &rcgen::KeyPair, year: i32) -> String {
    let mut params = rcgen::CertificateParams::new(vec!["device".into()]).unwrap();
    params.not_before = rcgen::date_time_ymd(1980, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    params.self_signed(key).unwrap().pem()
}

/// An identity that is due for renewal, and the server that knows it.
fn enrolled(state_dir: &Path) -> Server {
    let key = rcgen::KeyPair::generate().unwrap();
    let current = certificate(&key, 2027);
    let identity = identity_with(&key, current.clone(), current.clone());
    identity.store(state_dir).unwrap();
    Server {
        state_dir: state_dir.to_owned(),
        cut: Mutex::new(Cut::Nowhere),
        known: Mutex::new(Known { current, next: None }),
    }
}

/// The agent's start, as far as renewal goes.
fn start(state_dir: &Path) -> Renewal {
    let clock = Clock::open(state_dir).unwrap();
    let terms = Terms {
        connect: Duration::from_secs(1),
        min_rate_bytes_s: 1,
        rate_window: Duration::from_secs(1),
        max_rate: MaxRate::default(),
        proxies: Proxies::default(),
    };
    let links = Links::new(Identity::load(state_dir).unwrap(), &clock, terms.clone()).unwrap();
    Renewal { state_dir: state_dir.to_owned(), links: watch::Sender::new(Arc::new(links)), clock, terms }
}

fn in_use(renewal: &Renewal) -> String {
    renewal.links.borrow().identity.certificate.clone()
}

#[tokio::test]
async fn whatever_cuts_a_renewal_off_the_device_comes_back() {
    for first in CUTS {
        // The second attempt is cut off as well: what the first one left must survive that.
        for second in CUTS {
            for is_restarted in [true, false] {
                let at = format!("{first:?}, then {second:?}, restarted: {is_restarted}");
                let dir = tempfile::tempdir().unwrap();
                let server = enrolled(dir.path());
                let before = server.known().current.clone();
                let mut renewal = start(dir.path());
                for cut in [first, second] {
                    *server.cut.lock().unwrap() = cut;
                    let ended = renewal.attempt(&server).await;
                    assert!(cut != Cut::Nowhere || ended.is_ok(), "{at}: {ended:?}");
                    unblock(dir.path());
                    if is_restarted {
                        renewal = start(dir.path());
                    }
                }
                *server.cut.lock().unwrap() = Cut::Nowhere;
                renewal.attempt(&server).await.unwrap_or_else(|error| panic!("{at}: {error:?}"));
                assert_ne!(in_use(&renewal), before, "{at}: it is renewed");
                server.admit(&in_use(&renewal)).unwrap_or_else(|error| panic!("{at}: {error}"));
                let kept = Identity::load(dir.path()).unwrap();
                assert_eq!(
                    kept.certificate,
                    in_use(&renewal),
                    "{at}: what is used is what the next start has"
                );
                assert!(!has_next(dir.path()), "{at}: nothing is left over");
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_that_could_not_take_its_place_is_used_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let server = enrolled(dir.path());
    let renewal = start(dir.path());
    *server.cut.lock().unwrap() = Cut::WhereTheNewOneTakesItsPlace;
    assert!(matches!(renewal.attempt(&server).await, Err(RenewError::Keep(_))));
    server.admit(&in_use(&renewal)).unwrap();
    assert!(has_next(dir.path()), "the next start finds it");
}

#[tokio::test]
async fn what_waits_from_an_earlier_enrolment_or_is_damaged_is_not_tried() {
    let dir = tempfile::tempdir().unwrap();
    let server = enrolled(dir.path());
    let renewal = start(dir.path());
    *server.cut.lock().unwrap() = Cut::BeforeTheTrial;
    assert!(matches!(renewal.attempt(&server).await, Err(RenewError::Trial(_))));
    let earlier = Identity::load(dir.path()).unwrap();
    assert!(earlier.load_next(dir.path()).unwrap().is_some());
    let anew =
        Identity { report_seed: Identity::load(dir.path()).unwrap().report_seed.to_lowercase(), ..earlier };
    assert!(anew.load_next(dir.path()).unwrap().is_none() && !has_next(dir.path()));
    std::fs::write(dir.path().join("identity.next.json"), "{").unwrap();
    assert!(anew.load_next(dir.path()).unwrap().is_none() && !has_next(dir.path()));
}
