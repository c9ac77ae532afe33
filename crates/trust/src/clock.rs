//! The lower bound of time: a device may boot in 1970, and an attacker may set its clock back.

use protocol::UnixMillis;

/// The latest instant that is known to have passed. Starts at the build time and never moves back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeFloor(UnixMillis);

impl TimeFloor {
    /// The floor that a build begins with.
    pub fn new(build_time: UnixMillis) -> Self {
        Self(build_time)
    }

    /// Raises the floor to a time that was signed, or stored before; an earlier one changes nothing.
    pub fn raise(&mut self, signed: UnixMillis) {
        self.0 = self.0.max(signed);
    }

    /// The floor.
    pub fn get(self) -> UnixMillis {
        self.0
    }

    /// The one time to use for a whole run: the wall clock, unless it stands before the floor.
    pub fn fix(self, wall: UnixMillis) -> UnixMillis {
        self.0.max(wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f3_clock_set_back_does_not_move_the_floor() {
        let mut floor = TimeFloor::new(UnixMillis(1_000));
        floor.raise(UnixMillis(5_000));
        floor.raise(UnixMillis(2_000));
        assert_eq!(floor.fix(UnixMillis(0)), UnixMillis(5_000));
        assert_eq!(floor.fix(UnixMillis(9_000)), UnixMillis(9_000));
    }
}
