//! Which delegated role may speak about which path (specification, section 4.5 and step 5.6.7).

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use crate::envelope::KeySet;
use crate::metadata::{DelegatedRole, Delegations, SuccinctRoles};

/// A role that may speak about a path, with the keys that its delegator names for it.
pub(crate) struct Child<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) keys: KeySet,
    pub(crate) is_terminating: bool,
}

impl Delegations {
    /// The roles that were trusted with `target`, in order of appearance.
    pub(crate) fn trusted_with(&self, target: &str) -> impl Iterator<Item = Child<'_>> {
        let listed = self.roles().iter().filter(move |role| role.is_trusted_with(target));
        let listed = listed.map(|role| Child {
            name: Cow::Borrowed(role.name.as_str()),
            keys: self.key_set(&role.keys),
            is_terminating: role.terminating,
        });
        // Exactly one of the bins holds the path, so the search ends there.
        let bin = self.succinct_roles.iter().map(move |bins| Child {
            name: Cow::Owned(bins.role_of(target)),
            keys: self.key_set(&bins.keys),
            is_terminating: true,
        });
        listed.chain(bin)
    }
}

impl SuccinctRoles {
    /// TAP 15: the bin's number is the first `bit_length` bits of the path's SHA-256, written in hex with as many
    /// digits as the last bin's number has.
    pub(crate) fn role_of(&self, target: &str) -> String {
        let hash: [u8; 32] = Sha256::digest(target.as_bytes()).into();
        let first = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        let bin = first >> (32 - u32::from(self.bit_length.clamp(1, 32)));
        let digits = usize::from(self.bit_length).div_ceil(4);
        format!("{}-{bin:0digits$x}", self.name_prefix)
    }
}

impl DelegatedRole {
    /// Whether this role was trusted with `target`.
    fn is_trusted_with(&self, target: &str) -> bool {
        if let Some(patterns) = &self.paths {
            return patterns.iter().any(|pattern| matches_path(pattern, target));
        }
        let hash = hex::encode(Sha256::digest(target.as_bytes()));
        self.path_hash_prefixes.iter().flatten().any(|prefix| hash.starts_with(prefix.as_str()))
    }
}

/// Shell-style match (glob), case-sensitive; `*`, `?` and `[...]` don't cross `/`.
fn matches_path(pattern: &str, target: &str) -> bool {
    let (patterns, segments): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), target.split('/').collect());
    patterns.len() == segments.len() && patterns.iter().zip(&segments).all(|(p, s)| matches_segment(p, s))
}

/// Linear in pattern times segment: after a mismatch only the last `*` is tried again.
fn matches_segment(pattern: &str, segment: &str) -> bool {
    let (pattern, segment): (Vec<char>, Vec<char>) = (pattern.chars().collect(), segment.chars().collect());
    let (mut p, mut s) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while s < segment.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, s));
            p += 1;
        } else if let Some(next) = matches_one(&pattern, p, segment[s]) {
            p = next;
            s += 1;
        } else if let Some((star_p, star_s)) = star {
            star = Some((star_p, star_s + 1));
            p = star_p + 1;
            s = star_s + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Where the pattern goes on after it has matched this character at `p`: `?`, a set such as `[a-z]`, or itself.
fn matches_one(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match *pattern.get(p)? {
        '?' => Some(p + 1),
        '[' => match set_end(pattern, p) {
            Some(end) => is_in_set(&pattern[p + 1..end], c).then_some(end + 1),
            None => (c == '[').then_some(p + 1),
        },
        other => (other == c).then_some(p + 1),
    }
}

/// Where the set that begins at `p` ends; a bracket right at its beginning belongs to it.
fn set_end(pattern: &[char], p: usize) -> Option<usize> {
    let first = if pattern.get(p + 1) == Some(&'!') { p + 3 } else { p + 2 };
    let rest = pattern.get(first..)?;
    rest.iter().position(|c| *c == ']').map(|at| first + at)
}

fn is_in_set(set: &[char], c: char) -> bool {
    let (set, is_negated) = set.strip_prefix(&['!']).map_or((set, false), |rest| (rest, true));
    let mut rest = set;
    let mut is_found = false;
    while let Some(first) = rest.first() {
        if let [from, '-', to, tail @ ..] = rest {
            is_found |= (*from..=*to).contains(&c);
            rest = tail;
        } else {
            is_found |= *first == c;
            rest = &rest[1..];
        }
    }
    is_found != is_negated
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
        assert!(matches_path("[a-c]x", "bx") && !matches_path("[!a-c]x", "bx") && matches_path("a[*]", "a*"));
        assert!(!matches_path("a[*]", "ab") && matches_path("[]]", "]") && matches_path("[a", "[a"));
        assert!(matches_path("*[0-9].tgz", "a1.tgz") && !matches_path("*[0-9].tgz", "a.tgz"));
        assert!(matches_path("/a", "/a") && !matches_path("/a", "a") && matches_path("?", "\u{e9}"));
        assert!(matches_path("?.x", "1.x") && !matches_path("?.x", "12.x") && matches_path("*", ""));
    }
}
