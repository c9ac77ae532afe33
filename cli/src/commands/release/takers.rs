//! Who could take a release: what a manifest may say, because a later device may know it, but no device of this build
//! does. A slip of the pen is refused; an agent that is newer than this tool is only told of.

use anyhow::{Result, bail};
use release::{ARCHITECTURES, AgentVersion, Hardware, Manifest};

/// What people also call an architecture, and the name that devices report.
const ALSO_CALLED: [(&str, &str); 7] = [
    ("amd64", "x86_64"),
    ("x64", "x86_64"),
    ("arm64", "aarch64"),
    ("arm", "armv7"),
    ("armhf", "armv7"),
    ("armv7l", "armv7"),
    ("riscv64gc", "riscv64"),
];

/// Refuses what no device could take, by the key of the spec.
pub(super) fn check(manifest: &Manifest) -> Result<()> {
    check_arch("hardware.arch", &manifest.hardware)?;
    for variant in &manifest.variants {
        check_arch(&format!("hardware.arch of variant {}", variant.name), &variant.hardware)?;
    }
    if !manifest.runtime.is_met_by(inference::TRACT_VERSION) {
        bail!(
            "runtime.tract: {:?} is not what agents have; they have {}, write major.minor of it",
            manifest.runtime.tract,
            inference::TRACT_VERSION
        );
    }
    if let Some(warning) = too_new(manifest.min_agent_version, env!("CARGO_PKG_VERSION")) {
        eprintln!("{warning}");
    }
    Ok(())
}

fn check_arch(key: &str, hardware: &Hardware) -> Result<()> {
    let Some(unknown) = hardware.arch.iter().find(|arch| !ARCHITECTURES.contains(&arch.as_str())) else {
        return Ok(());
    };
    let meant = meant(unknown).map(|meant| format!(" (do you mean {meant:?}?)")).unwrap_or_default();
    bail!("{key}: no device has architecture {unknown:?}{meant}; known are {}", ARCHITECTURES.join(", "))
}

/// The known architecture that was probably meant.
fn meant(unknown: &str) -> Option<&'static str> {
    let plain = |name: &str| -> String {
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let asked = plain(unknown);
    let known = ARCHITECTURES.into_iter().find(|known| plain(known) == asked);
    known.or_else(|| ALSO_CALLED.into_iter().find(|(also, _)| *also == asked).map(|(_, known)| known))
}

/// What to say about a release for agents that are newer than this tool; they may well be there by then.
fn too_new(needed: AgentVersion, own: &str) -> Option<String> {
    let own: AgentVersion = own.parse().ok()?;
    (needed > own).then(|| {
        format!(
            "warning: min_agent_version: agents of this version ({own}) refuse the release, it asks for {needed} or newer"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_is_known_by_its_other_names_too() {
        for (written, expected) in [
            ("x86-64", Some("x86_64")),
            ("X86_64", Some("x86_64")),
            ("AMD64", Some("x86_64")),
            ("arm64", Some("aarch64")),
            ("armv7l", Some("armv7")),
            ("sparc", None),
        ] {
            assert_eq!(meant(written), expected, "{written}");
        }
    }

    #[test]
    fn only_a_newer_agent_is_warned_of() {
        let version = |text: &str| text.parse().unwrap();
        assert_eq!(too_new(version("0.1.0"), "0.1.0"), None);
        let said = too_new(version("99.0.0"), "0.1.0").unwrap();
        assert!(said.contains("min_agent_version") && said.contains("99.0.0"), "{said}");
    }
}
