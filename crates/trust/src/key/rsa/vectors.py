"""Writes vectors.json: RSA keys and signatures made by `cryptography` (PyPI, as in tuf-client/interop).

Each vector says whether a verifier of rsassa-pss-sha256 that reads the salt's length must accept it.
"""

import json
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS

MESSAGE = b"message"


def pem(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def sign(key, scheme, digest=hashes.SHA256):
    return key.sign(MESSAGE, scheme, digest())


def vectors():
    pss = lambda salt, mask=hashes.SHA256: PSS(MGF1(mask()), salt)
    # One bit more or less than whole bytes moves the first byte of the encoded message.
    for bits, exponent in [(2048, 65537), (2049, 65537), (2055, 3), (3072, 65537), (4096, 65537)]:
        key = rsa.generate_private_key(exponent, bits)
        salts = {"digest": PSS.DIGEST_LENGTH, "longest": PSS.MAX_LENGTH, "none": 0, "one": 1}
        for name, salt in salts.items():
            yield f"{bits} bits, salt: {name}", key, sign(key, pss(salt)), True
    yield "PKCS #1 v1.5", key, sign(key, padding.PKCS1v15()), False
    yield "SHA-512", key, sign(key, pss(32), hashes.SHA512), False
    yield "mask of another hash", key, sign(key, pss(32, hashes.SHA512)), False
    yield "another message", key, key.sign(b"massage", pss(32), hashes.SHA256()), False
    short = rsa.generate_private_key(65537, 1024)
    yield "too short a key", short, sign(short, pss(32)), False


rows = [
    {"name": name, "public": pem(key), "signature": signature.hex(), "is_good": is_good}
    for name, key, signature, is_good in vectors()
]
document = {"message": MESSAGE.decode(), "vectors": rows}
Path(__file__).with_name("vectors.json").write_text(json.dumps(document, indent=1) + "\n")
