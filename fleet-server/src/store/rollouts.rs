//! Rollouts, their tasks, journal and evidence.
