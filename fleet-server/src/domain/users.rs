//! Passwords, the first admin, and the brake on guessing.

use std::collections::HashMap;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use protocol::{ProjectId, UnixMillis};
use serde_json::json;

use crate::app::AppState;
use crate::domain::access::{Grant, Role, Scope};
use crate::domain::audit::{self, Change};
use crate::ids::random_bytes;
use crate::store::users::User;
use crate::store::{Store, StoreError, projects, sessions, users};

/// Shortest password in characters.
pub const MIN_PASSWORD_CHARS: usize = 10;
/// The user that the first start makes.
const FIRST_USER: &str = "admin";
/// Longest password in bytes; stops hashing of megabytes.
pub const MAX_PASSWORD_BYTES: usize = 512;

/// Why a user could not be made or checked.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The password hash can't be made.
    #[error("cannot hash a password: {0}")]
    Hash(String),
    /// The one-time password can't be written.
    #[error("cannot write the one-time password to {path}", path = path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nobody has that name.
    #[error("no user is named {0:?}")]
    Unknown(String),
    /// The database failed.
    #[error("cannot store the user")]
    Store(#[from] StoreError),
}

/// The first admin, at first start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstAdmin {
    /// Name to sign in with.
    pub username: String,
    /// One-time password.
    pub password: String,
    /// Where it was written, readable by the owner only.
    pub file: PathBuf,
}

/// Makes project `default` and user `admin` when the database is empty.
///
/// # Errors
/// [`UserError`] when the password can't be written or the database refuses; nothing is made then.
pub async fn ensure_first_start(state: &AppState) -> Result<Option<FirstAdmin>, UserError> {
    let now = state.clock.now();
    let mut tx = state.store.begin().await?;
    if projects::list(&mut tx).await?.is_empty() {
        let project = ProjectId::new("default").expect("a valid name");
        let row = projects::Project { project: project.clone(), title: "Default".into(), created_at: now };
        projects::insert(&mut tx, &row).await?;
        let change = Change::new(now, "server", "project.create", "project", "default").in_project(&project);
        audit::record(&mut tx, &change).await?;
    }
    let mut first = None;
    if users::count(&mut tx).await? == 0 {
        let file = first_password_file(state);
        let password = one_time_password();
        let user = User {
            username: FIRST_USER.into(),
            password_hash: hash_password(&password)?,
            must_change_password: true,
            is_disabled: false,
            created_at: now,
            updated_at: now,
            grants: vec![Grant { scope: Scope::All, role: Role::Admin }],
        };
        users::insert(&mut tx, &user).await?;
        let change =
            Change::new(now, "server", "user.create", "user", FIRST_USER).after(json!({"first": true}));
        audit::record(&mut tx, &change).await?;
        write_secret(&file, &password).map_err(|source| UserError::Write { path: file.clone(), source })?;
        first = Some(FirstAdmin { username: user.username, password, file });
    }
    tx.commit().await?;
    Ok(first)
}

/// Gives a user a one-time password and ends the sessions: for whoever holds the server's own data, when no admin can
/// sign in any more. Where nobody is an admin, this user becomes one.
///
/// # Errors
/// [`UserError::Unknown`]; others when the database refuses. Nothing has changed then.
pub async fn reset_password(store: &Store, username: &str, now: UnixMillis) -> Result<String, UserError> {
    let password = one_time_password();
    let mut tx = store.begin().await?;
    users::lock(&mut tx).await?;
    let user = users::get(&mut tx, username).await?;
    let mut user = user.ok_or_else(|| UserError::Unknown(username.to_owned()))?;
    user.password_hash = hash_password(&password)?;
    user.must_change_password = true;
    user.is_disabled = false;
    user.updated_at = now;
    if !user.is_admin() && !users::list(&mut tx).await?.iter().any(User::is_admin) {
        user.grants.retain(|grant| grant.scope != Scope::All);
        user.grants.push(Grant { scope: Scope::All, role: Role::Admin });
    }
    users::update(&mut tx, &user).await?;
    sessions::delete_of_user(&mut tx, username).await?;
    let change = Change::new(now, "server", "user.reset_password", "user", username);
    audit::record(&mut tx, &change).await?;
    tx.commit().await?;
    Ok(password)
}

fn first_password_file(state: &AppState) -> PathBuf {
    state.config.data_dir.join("first-admin-password")
}

/// Removes the file with the one-time password once its user has replaced it: it opens nothing any more.
pub fn forget_first_password(state: &AppState, username: &str) {
    let file = first_password_file(state);
    if username != FIRST_USER {
        return;
    }
    match std::fs::remove_file(&file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(
                "{} holds a password that is no longer valid and can't be removed: {e}",
                file.display()
            );
        }
        _ => {}
    }
}

fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    // A file left from an earlier first start may have other rights: begin with a new one.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

/// Twenty letters and digits without look-alikes, in groups of five: 100 bits.
pub fn one_time_password() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bytes: [u8; 20] = random_bytes();
    let letters: Vec<char> = bytes.iter().map(|b| char::from(LETTERS[usize::from(b & 31)])).collect();
    letters.chunks(5).map(String::from_iter).collect::<Vec<_>>().join("-")
}

/// Why a new password is refused; `None` when it is fine.
pub fn password_problem(username: &str, password: &str) -> Option<&'static str> {
    if password.chars().count() < MIN_PASSWORD_CHARS {
        return Some("A password needs at least 10 characters.");
    }
    if password.len() > MAX_PASSWORD_BYTES {
        return Some("A password may have at most 512 bytes.");
    }
    if password.to_lowercase().contains(&username.to_lowercase()) {
        return Some("A password must not contain the user's name.");
    }
    None
}

/// Whether a text can be a user's name.
pub fn is_username(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '+');
    (1..=64).contains(&text.len()) && text.chars().all(is_inner)
}

/// Argon2id with the library's default cost (19 MiB, 2 passes), in PHC form.
///
/// # Errors
/// [`UserError::Hash`] when the library refuses.
pub fn hash_password(password: &str) -> Result<String, UserError> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|e| UserError::Hash(e.to_string()))
}

/// Whether the password fits the hash. Takes the same time for a user that doesn't exist (`hash` is `None`).
pub fn verify_password(password: &str, hash: Option<&str>) -> bool {
    /// A hash of something that nobody knows, with the same cost.
    const NOBODY: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5LWtub3dzLWl0$0PVJbWqXHzNVPLpDF6A0y8e0SPVEMcXKqUNIKzJ3QGE";
    if password.len() > MAX_PASSWORD_BYTES {
        return false;
    }
    let Ok(parsed) = PasswordHash::new(hash.unwrap_or(NOBODY)) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok() && hash.is_some()
}

/// Counts tries of passwords in a sliding minute, until one is right: of a user from an address, of an address and of a
/// user from everywhere, the last two with wider bounds. One person who forgot a password keeps neither the others behind
/// the same address out, nor can a stranger so easily keep a user out; what one address or all together can guess stays
/// bounded.
#[derive(Debug)]
pub struct SignInLimiter {
    per_minute: u32,
    tries: Mutex<HashMap<Guesser, Vec<UnixMillis>>>,
}

/// What tries are counted for: a user from an address, an address, or a user from everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Guesser {
    user: Option<String>,
    address: Option<IpAddr>,
}

/// Names and addresses that are remembered; beyond it all are forgotten, which only helps a guesser who already
/// controls that many addresses.
const MAX_REMEMBERED: usize = 100_000;
const WINDOW_MS: i64 = 60_000;
/// So many times the bound of one user from one address is the address's over all users: an office behind one address.
const OF_ONE_ADDRESS: u32 = 5;
/// So many times it is the user's from all addresses.
const FROM_EVERYWHERE: u32 = 10;

impl SignInLimiter {
    /// At most so many wrong passwords of a user from an address in a minute.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute: per_minute.max(1), tries: Mutex::default() }
    }

    /// Counts a try as wrong before anyone knows: many at once are held back like many in a row.
    ///
    /// # Errors
    /// Seconds to wait before the next try; this one isn't counted then.
    pub fn begin(&self, username: &str, address: Option<IpAddr>, now: UnixMillis) -> Result<(), u64> {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.len() > MAX_REMEMBERED {
            tries.clear();
        }
        let keys = keys(username, address);
        let waits = keys.iter().filter_map(|(key, times)| self.wait_s(tries.get(key)?, *times, now));
        if let Some(seconds) = waits.max() {
            return Err(u64::try_from(seconds).unwrap_or_default());
        }
        for (key, _) in keys {
            let times = tries.entry(key).or_default();
            times.retain(|at| now.millis_since(*at) < WINDOW_MS);
            times.push(now);
        }
        Ok(())
    }

    fn wait_s(&self, tries: &[UnixMillis], times: u32, now: UnixMillis) -> Option<i64> {
        let bound = usize::try_from(self.per_minute.saturating_mul(times)).unwrap_or(usize::MAX);
        let recent: Vec<_> = tries.iter().filter(|at| now.millis_since(**at) < WINDOW_MS).collect();
        let oldest_that_counts = recent.len().checked_sub(bound).and_then(|index| recent.get(index))?;
        Some((WINDOW_MS - now.millis_since(**oldest_that_counts)) / 1000 + 1)
    }

    /// The try that began at `began` was right: it doesn't count, nor do the user's earlier ones from this address.
    /// Other tries of the address stay.
    pub fn succeeded(&self, username: &str, address: Option<IpAddr>, began: UnixMillis) {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, _) in keys(username, address) {
            let Some(times) = tries.get_mut(&key) else { continue };
            if key.user.is_some() && key.address == address.map(place_of) {
                tries.remove(&key);
            } else if let Some(at) = times.iter().rposition(|at| *at == began) {
                times.remove(at);
            }
        }
    }
}

/// What a try counts for, each with its multiple of the bound.
fn keys(username: &str, address: Option<IpAddr>) -> Vec<(Guesser, u32)> {
    let user: Option<String> = Some(username.chars().take(64).collect());
    let address = address.map(place_of);
    if address.is_none() {
        return vec![(Guesser { user, address }, 1)];
    }
    let everywhere = Guesser { user: user.clone(), address: None };
    let alone = Guesser { user: None, address };
    vec![(Guesser { user, address }, 1), (alone, OF_ONE_ADDRESS), (everywhere, FROM_EVERYWHERE)]
}

/// Who has one IPv6 address has the 2^64 of its network: they count as one.
fn place_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_fits() {
        let hash = hash_password("correct horse battery").unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(verify_password("correct horse battery", Some(&hash)));
        assert!(!verify_password("correct horse", Some(&hash)));
        assert!(!verify_password("anything", None));
    }

    #[test]
    fn a_user_that_does_not_exist_costs_as_much() {
        let took = |hash: Option<&str>| {
            let began = std::time::Instant::now();
            verify_password("x", hash);
            began.elapsed()
        };
        let hash = hash_password("correct horse battery").unwrap();
        let (there, not_there) = (took(Some(&hash)), took(None));
        assert!(not_there * 10 > there, "{not_there:?} against {there:?}");
    }

    #[test]
    fn weak_passwords_are_refused() {
        assert!(password_problem("ana", "short").is_some());
        assert!(password_problem("ana", "ANA-1234567").is_some());
        assert!(password_problem("ana", &"x".repeat(600)).is_some());
        assert!(password_problem("ana", &one_time_password()).is_none());
    }

    #[test]
    fn guessing_is_slowed_down_and_recovers() {
        let limiter = SignInLimiter::new(3);
        let address = Some(IpAddr::from([10, 0, 0, 1]));
        for second in 0..3 {
            assert_eq!(limiter.begin("ana", address, UnixMillis(second * 1000)), Ok(()));
        }
        let elsewhere = Some(IpAddr::from([10, 0, 0, 2]));
        assert_eq!(limiter.begin("ana", address, UnixMillis(3000)), Err(58));
        assert_eq!(limiter.begin("bob", address, UnixMillis(3000)), Ok(()), "ana doesn't keep him out");
        assert_eq!(
            limiter.begin("ana", elsewhere, UnixMillis(3000)),
            Ok(()),
            "a stranger doesn't keep her out"
        );
        assert_eq!(limiter.begin("ana", address, UnixMillis(60_000)), Ok(()));
    }

    #[test]
    fn one_address_guesses_at_most_five_times_as_often_and_one_user_is_guessed_ten_times() {
        let wrong = |limiter: &SignInLimiter, user: usize, host: usize| {
            let address = IpAddr::from([10, 0, 0, u8::try_from(host).unwrap()]);
            limiter.begin(&format!("user{user}"), Some(address), UnixMillis(0)).is_ok()
        };
        let limiter = SignInLimiter::new(2);
        let of_one_address = (0..100).filter(|user| wrong(&limiter, *user, 1)).count();
        assert_eq!(of_one_address, 10);
        let limiter = SignInLimiter::new(2);
        let of_one_user = (0..100).filter(|host| wrong(&limiter, 1, *host)).count();
        assert_eq!(of_one_user, 20);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one() {
        let limiter = SignInLimiter::new(1);
        let begin = |address: &str| limiter.begin("ana", Some(address.parse().unwrap()), UnixMillis(0));
        assert_eq!(begin("2001:db8::1"), Ok(()));
        assert!(begin("2001:db8::ffff:2").is_err());
        assert_eq!(begin("2001:db8:0:1::1"), Ok(()));
        assert_eq!(begin("10.0.0.1"), Ok(()));
        assert!(begin("::ffff:10.0.0.1").is_err());
    }

    #[test]
    fn no_name_counts_for_another() {
        let limiter = SignInLimiter::new(1);
        let address = Some(IpAddr::from([10, 0, 0, 1]));
        let elsewhere = Some(IpAddr::from([10, 0, 0, 2]));
        assert_eq!(limiter.begin("bob from 10.0.0.1", elsewhere, UnixMillis(0)), Ok(()));
        assert_eq!(limiter.begin("bob", address, UnixMillis(0)), Ok(()));
    }

    #[test]
    fn right_passwords_are_not_counted() {
        let limiter = SignInLimiter::new(3);
        let address = Some(IpAddr::from([10, 0, 0, 1]));
        for second in 0..9 {
            let now = UnixMillis(second * 1000);
            assert_eq!(limiter.begin("ana", address, now), Ok(()));
            limiter.succeeded("ana", address, now);
        }
    }
}
