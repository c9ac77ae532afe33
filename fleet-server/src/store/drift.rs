//! Drift windows.
