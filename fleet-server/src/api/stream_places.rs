//! How many live streams may be open: a bound for all, and one for each user so that nobody takes all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places for live streams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StreamPlaces {
    all: usize,
    per_user: usize,
    /// Open streams by user; nobody stands here with none.
    open: Arc<Mutex<HashMap<String, usize>>>,
}

/// One open stream; dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    username: String,
    places: StreamPlaces,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The user has as many as one user may have.
    OfUser {
        /// How many that is.
        bound: usize,
    },
    /// All places are taken.
    All,
}

impl StreamPlaces {
    /// At most `all` at once, of which at most `per_user` for one user.
    pub fn new(all: usize, per_user: usize) -> Self {
        Self { all, per_user, open: Arc::default() }
    }

    /// Takes a place for this user.
    ///
    /// # Errors
    /// [`Full`] says which bound is reached.
    pub fn take(&self, username: &str) -> Result<Place, Full> {
        let mut open = self.open();
        if open.get(username).is_some_and(|own| *own >= self.per_user) {
            return Err(Full::OfUser { bound: self.per_user });
        }
        if open.values().sum::<usize>() >= self.all {
            return Err(Full::All);
        }
        *open.entry(username.to_owned()).or_default() += 1;
        Ok(Place { username: username.to_owned(), places: self.clone() })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.open();
        let Some(own) = open.get_mut(&self.username) else { return };
        *own = own.saturating_sub(1);
        if *own == 0 {
            open.remove(&self.username);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_all_places() {
        let places = StreamPlaces::new(3, 2);
        let (first, _second) = (places.take("ana").unwrap(), places.take("ana").unwrap());
        assert_eq!(places.take("ana").unwrap_err(), Full::OfUser { bound: 2 });
        let _third = places.take("bob").unwrap();
        assert_eq!(places.take("eve").unwrap_err(), Full::All);
        drop(first);
        assert!(places.take("eve").is_ok());
    }

    #[test]
    fn users_without_streams_are_forgotten() {
        let places = StreamPlaces::new(3, 2);
        drop(places.take("ana").unwrap());
        assert!(places.open().is_empty());
    }
}
