//! Gives the build its time (a lower bound of the device's clock) and its target.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-env-changed=FLOTILLA_COMMIT");
    let now_s = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let built_s =
        std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()).unwrap_or_else(now_s);
    println!("cargo:rustc-env=FLOTILLA_BUILT_S={built_s}");
    println!("cargo:rustc-env=FLOTILLA_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    println!(
        "cargo:rustc-env=FLOTILLA_COMMIT={}",
        std::env::var("FLOTILLA_COMMIT").unwrap_or_else(|_| "unknown".into())
    );
}
