//! Against signatures of another implementation (`vectors.py` makes them), and bent ones.

use serde_json::Value;

use super::*;
use crate::key::{PublicKey, Verifier};

struct Vector {
    name: String,
    public: String,
    signature: Vec<u8>,
    is_good: bool,
}

fn vectors() -> (Vec<u8>, Vec<Vector>) {
    let document: Value = serde_json::from_str(include_str!("vectors.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = document["vectors"].as_array().unwrap().iter().map(|row| Vector {
        name: text(&row["name"]),
        public: text(&row["public"]),
        signature: hex::decode(text(&row["signature"])).unwrap(),
        is_good: row["is_good"].as_bool().unwrap(),
    });
    (text(&document["message"]).into_bytes(), rows.collect())
}

fn key(public: &str) -> PublicKey {
    PublicKey::pair("rsa", "rsassa-pss-sha256", public.to_owned())
}

#[test]
fn a_salt_of_any_length_is_read_and_nothing_else_is_taken_for_it() {
    let (message, vectors) = vectors();
    assert_eq!(vectors.iter().filter(|vector| vector.is_good).count(), 20);
    for vector in &vectors {
        let verifies = key(&vector.public).verifies(&message, &vector.signature);
        assert_eq!(verifies, vector.is_good, "{}", vector.name);
    }
}

#[test]
fn one_changed_bit_anywhere_is_refused() {
    let (message, vectors) = vectors();
    for vector in vectors.iter().filter(|vector| vector.is_good) {
        let key = Key::parse(&vector.public).unwrap();
        assert!(!key.verifies(b"other", &vector.signature), "{}", vector.name);
        for at in (0..vector.signature.len()).step_by(41) {
            let mut bent = vector.signature.clone();
            bent[at] ^= 1;
            assert!(!key.verifies(&message, &bent), "{} at {at}", vector.name);
        }
        for bent in [
            &vector.signature[1..],
            &[&[0], &vector.signature[..]].concat(),
            &[&vector.signature[..], &[0]].concat(),
            &key.modulus(),
            &vec![0; vector.signature.len()],
            &[],
        ] {
            assert!(!key.verifies(&message, bent), "{}", vector.name);
        }
    }
}

#[test]
fn a_number_that_is_not_below_the_modulus_is_no_signature() {
    let (message, vectors) = vectors();
    let vector = &vectors[0];
    let key = Key::parse(&vector.public).unwrap();
    let beyond = (BigUint::from_bytes_be(&vector.signature) + &key.modulus).to_bytes_be();
    assert!(key.verifies(&message, &vector.signature) && !key.verifies(&message, &beyond));
}

#[test]
fn a2_one_modulus_is_one_key_however_it_is_written() {
    let (_, vectors) = vectors();
    let der = pem::decode(&vectors[0].public).unwrap();
    let mut other = der.clone();
    // The exponent is the last number: 65537 becomes 65539.
    *other.last_mut().unwrap() = 3;
    let Ok(one) = key(&vectors[0].public).verifier() else { panic!() };
    let Some(two) = public_key(&other).map(Verifier::RsaPss) else { panic!() };
    assert!(one != two && one.identity() == two.identity());
    for cut in [&der[1..], &der[..der.len() - 1], &[&der[..], &[0]].concat()] {
        assert!(public_key(cut).is_none());
    }
}
