//! The proof that content came through verification.

use std::ops::Deref;

/// Content whose whole signed chain was accepted. Only this crate can make one out of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    pub(crate) fn new(content: T) -> Self {
        Self(content)
    }

    /// Reads verified bytes as something richer; the reader sees nothing but the verified content.
    ///
    /// # Errors
    /// What the reader returns.
    pub fn read<U, E>(&self, reader: fn(&T) -> Result<U, E>) -> Result<Verified<U>, E> {
        reader(&self.0).map(Verified)
    }

    /// Gives up the proof.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}
