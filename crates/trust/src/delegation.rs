//! Which delegated role may speak about which path (specification, section 4.5 and step 5.6.7).

use sha2::{Digest as _, Sha256};

use crate::metadata::DelegatedRole;

impl DelegatedRole {
    /// Whether this role was trusted with `target`.
    pub(crate) fn is_trusted_with(&self, target: &str) -> bool {
        if let Some(patterns) = &self.paths {
            return patterns.iter().any(|pattern| matches_path(pattern, target));
        }
        let hash = hex::encode(Sha256::digest(target.as_bytes()));
        self.path_hash_prefixes
            .iter()
            .flatten()
            .any(|prefix| !prefix.is_empty() && hash.starts_with(prefix.as_str()))
    }
}

/// Shell-style match, case-sensitive; `*` and `?` don't cross `/`.
fn matches_path(pattern: &str, target: &str) -> bool {
    let (patterns, segments): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), target.split('/').collect());
    patterns.len() == segments.len()
        && patterns.iter().zip(&segments).all(|(p, s)| matches_segment(p.as_bytes(), s.as_bytes()))
}

/// Linear in pattern times segment: after a mismatch only the last `*` is tried again.
fn matches_segment(pattern: &[u8], segment: &[u8]) -> bool {
    let (mut p, mut s) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while s < segment.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, s));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == segment[s] => {
                p += 1;
                s += 1;
            }
            _ => match star {
                Some((star_p, star_s)) => {
                    star = Some((star_p, star_s + 1));
                    p = star_p + 1;
                    s = star_s + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a6_patterns_are_case_sensitive_and_do_not_cross_slashes() {
        let pattern = "models/digits/*/manifest.json";
        assert!(matches_path(pattern, "models/digits/1.0.0/manifest.json"));
        for outside in [
            "models/digits/1/2/manifest.json",
            "models/Digits/1.0.0/manifest.json",
            "models/digits/manifest.json",
            "models/other/1.0.0/manifest.json",
            "models/digits/1.0.0/manifest.json/x",
        ] {
            assert!(!matches_path(pattern, outside), "{outside}");
        }
        assert!(matches_path("a*b*c", "aXbYbZc") && !matches_path("a*b*c", "aXbY"));
        assert!(matches_path("?.x", "1.x") && !matches_path("?.x", "12.x") && matches_path("*", ""));
    }
}
