"""A repository that python-tuf makes, served from memory on a local port."""

import copy
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ecdsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.hashes import SHA256
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

TOP_LEVEL = ["root", "timestamp", "snapshot", "targets"]


class LongSaltSigner(CryptoSigner):
    """RSA-PSS with the longest salt that fits, as other signers than python-tuf's make it."""

    def sign(self, payload):
        sig = self._private_key.sign(payload, PSS(MGF1(SHA256()), PSS.MAX_LENGTH), SHA256())
        return Signature(self.public_key.keyid, sig.hex())


def old_ecdsa():
    """A key under the key type that the specification names and newer repositories no longer write."""
    private = generate_ecdsa(SECP256R1())
    key = SSlibKey.from_crypto(private.public_key())
    old = SSlibKey(key.keyid, key.scheme, key.scheme, key.keyval, {"x-owner": "an unknown field"})
    return CryptoSigner(private, old)


MAKE = {
    "ed25519": CryptoSigner.generate_ed25519,
    "ecdsa": CryptoSigner.generate_ecdsa,
    "ecdsa-sha2-nistp256": old_ecdsa,
    "rsa": CryptoSigner.generate_rsa,
    "rsa, long salt": lambda: LongSaltSigner(generate_rsa(65537, 3072)),
}


def new_key(keytype):
    """A new key pair of a kind in `MAKE`."""
    return MAKE[keytype]()


class Repository:
    """Keys, metadata and files. `publish` signs what changed and puts it where clients look."""

    def __init__(self, keytype="ed25519", consistent=True, hashes=("sha256",), meta_hashes=True):
        self.hashes = list(hashes)
        self.meta_hashes = meta_hashes
        self.files = {}
        self.target_files = {}
        self.asked = []
        self.expires = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=30)
        self.signers = {role: [new_key(keytype)] for role in TOP_LEVEL}
        self.roles = {"targets": Metadata(Targets(expires=self.expires))}
        self.root = Metadata(Root(expires=self.expires, consistent_snapshot=consistent))
        for role in TOP_LEVEL:
            self.root.signed.add_key(self.signers[role][0].public_key, role)
        self.snapshot = Metadata(Snapshot(expires=self.expires))
        self.timestamp = Metadata(Timestamp(expires=self.expires))
        self.put_root()
        self.changed = {"targets"}
        self.published = 0

    @property
    def consistent(self):
        return self.root.signed.consistent_snapshot

    def put_root(self, also=()):
        """Signs root by its keys and by others, the ones before it."""
        self.root.signatures.clear()
        for signer in [*self.signers["root"], *also]:
            self.root.sign(signer, append=True)
        self.files[f"{self.root.signed.version}.root.json"] = self.root.to_bytes()

    def rotate(self, role, keytype):
        """Gives a top-level role a new key in a new root."""
        old = list(self.signers["root"])
        for signer in self.signers[role]:
            self.root.signed.revoke_key(signer.public_key.keyid, role)
        self.signers[role] = [new_key(keytype)]
        self.root.signed.add_key(self.signers[role][0].public_key, role)
        self.root.signed.version += 1
        self.put_root(old if role == "root" else ())
        if role in ("targets",):
            self.bump(role)

    def bump(self, role):
        """A new version of a targets role."""
        self.roles[role].signed.version += 1
        self.changed.add(role)

    def add_target(self, path, content, role="targets"):
        self.target_files[path] = content
        self.roles[role].signed.targets[path] = TargetFile.from_data(path, content, self.hashes)
        self.changed.add(role)

    def delegate(self, name, keytype, paths=None, prefixes=None, parent="targets", terminating=False):
        """Delegates to a new role."""
        self.signers[name] = [new_key(keytype)]
        targets = self.roles[parent].signed
        if targets.delegations is None:
            targets.delegations = Delegations({}, roles={})
        role = DelegatedRole(name, [], 1, terminating, paths=paths, path_hash_prefixes=prefixes)
        targets.delegations.roles[name] = role
        targets.add_key(self.signers[name][0].public_key, name)
        self.roles[name] = Metadata(Targets(expires=self.expires))
        self.changed |= {name, parent}

    def delegate_bins(self, bits, prefix, keytype):
        """Delegates everything to succinct hash bins with one key."""
        signer = new_key(keytype)
        bins = SuccinctRoles([signer.public_key.keyid], 1, bits, prefix)
        key = signer.public_key
        self.roles["targets"].signed.delegations = Delegations({key.keyid: key}, succinct_roles=bins)
        for name in bins.get_roles():
            self.signers[name] = [signer]
            self.roles[name] = Metadata(Targets(expires=self.expires))
            self.changed.add(name)
        return bins

    def publish(self):
        """Signs what changed, then snapshot and timestamp."""
        for name in self.changed:
            self.put(name, self.roles[name])
        self.changed = set()
        self.published += 1
        meta = {f"{name}.json": self.meta(md) for name, md in self.roles.items()}
        self.snapshot.signed.meta = meta
        self.snapshot.signed.version = self.published
        self.put("snapshot", self.snapshot)
        self.timestamp.signed.snapshot_meta = self.meta(self.snapshot)
        self.timestamp.signed.version = self.published
        self.put("timestamp", self.timestamp)

    def meta(self, md):
        if not self.meta_hashes:
            return MetaFile(md.signed.version)
        return MetaFile.from_data(md.signed.version, md.to_bytes(), self.hashes)

    def put(self, name, md):
        md.signatures.clear()
        for signer in self.signers[name]:
            md.sign(signer, append=True)
        prefix = f"{md.signed.version}." if self.consistent and name != "timestamp" else ""
        self.files[f"{prefix}{name}.json"] = md.to_bytes()

    def answer(self, path):
        """What the server has at a path below its address, in its decoded form."""
        kind, _, rest = path.lstrip("/").partition("/")
        self.asked.append(path)
        if kind == "metadata":
            return self.files.get(rest)
        for name, content in self.target_files.items():
            folder, slash, last = name.rpartition("/")
            info = next(md.signed.targets[name] for md in self.roles.values() if name in md.signed.targets)
            names = [f"{folder}{slash}{value}.{last}" for value in info.hashes.values()]
            if rest in (names if self.consistent else [name]):
                return content
        return None

    def copy_state(self):
        """What an attacker keeps to serve it again later."""
        return copy.deepcopy(self.files)


class Server:
    """Serves a repository; `with Server(repository) as address`."""

    def __init__(self, repository):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                content = repository.answer(unquote(self.path))
                self.send_response(200 if content is not None else 404)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_):
        self.server.shutdown()
