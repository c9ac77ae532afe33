"""Tries tuf-client against repositories made by python-tuf, and python-tuf's client against ours.

run.py --client TUF_CLIENT --ours FOLDER: FOLDER is what the example `make_repository` wrote.
"""

import argparse
import glob
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from repository import MAKE, Repository, Server
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata
from tuf.api.serialization import DeserializationError
from tuf.ngclient import Updater

CLIENT = None


class Device:
    """A folder of tuf-client."""

    def __init__(self, repository, address):
        self.folder = Path(tempfile.mkdtemp(prefix="interop-"))
        self.metadata, self.targets = self.folder / "metadata", self.folder / "targets"
        self.repository, self.address = repository, address
        root = self.folder / "trusted.json"
        root.write_bytes(repository.files["1.root.json"])
        self.expect(0, self.run("init", str(root)))

    def run(self, *args, faketime=None):
        env = dict(os.environ)
        if faketime:
            [library] = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
            env |= {"LD_PRELOAD": library, "FAKETIME": faketime}
        command = [CLIENT, "--metadata-dir", str(self.metadata), *args]
        self.last = subprocess.run(command, env=env, capture_output=True, text=True)
        return self.last.returncode

    def refresh(self, **kwargs):
        return self.run("--metadata-url", f"{self.address}/metadata", "refresh", **kwargs)

    def download(self, *names, **kwargs):
        options = [part for name in names for part in ("--target-name", name)]
        where = ["--target-base-url", f"{self.address}/targets/", "--target-dir", str(self.targets)]
        return self.run("--metadata-url", f"{self.address}/metadata/", *options, *where, "download", **kwargs)

    def stored(self):
        return {path.name: path.read_bytes() for path in self.metadata.iterdir()}

    def contents(self):
        if not self.targets.exists():
            return []
        return sorted(path.read_bytes() for path in self.targets.iterdir())

    def expect(self, code, got):
        assert got == code, f"exit code {got}, expected {code}: {self.last.stderr}"


def every_key_type_signs_every_role():
    for keytype in MAKE:
        repository = Repository(keytype=keytype)
        repository.delegate("team", keytype, paths=["team/*"])
        repository.add_target("team/file", b"content", "team")
        repository.publish()
        with Server(repository) as address:
            device = Device(repository, address)
            device.expect(0, device.download("team/file"))
            assert device.contents() == [b"content"], keytype
            # The signed part changed: the signature is no longer right.
            forged = json.loads(repository.files["timestamp.json"])
            forged["signed"]["version"] += 1
            repository.files["timestamp.json"] = json.dumps(forged).encode()
            device.expect(1, device.refresh())
            assert "5.4.2" in device.last.stderr, device.last.stderr


def keys_of_other_types_replace_each_other():
    repository = Repository()
    repository.publish()
    with Server(repository) as address:
        device = Device(repository, address)
        device.expect(0, device.refresh())
        for keytype in ["ecdsa", "rsa, long salt", "ed25519"]:
            for role in ["timestamp", "snapshot", "targets", "root"]:
                repository.rotate(role, keytype)
                repository.publish()
                device.expect(0, device.refresh())
        assert device.stored()["root.json"] == repository.files["13.root.json"]


def trusted_metadata_is_stored_byte_exactly():
    for consistent in [True, False]:
        for meta_hashes in [True, False]:
            repository = Repository(consistent=consistent, meta_hashes=meta_hashes)
            repository.add_target("file", b"content")
            repository.publish()
            with Server(repository) as address:
                device = Device(repository, address)
                device.expect(0, device.download("file"))
                prefix = "1." if consistent else ""
                names = {"root.json": "1.root.json", "timestamp.json": "timestamp.json"}
                names |= {f"{role}.json": f"{prefix}{role}.json" for role in ["snapshot", "targets"]}
                assert device.stored() == {mine: repository.files[theirs] for mine, theirs in names.items()}
                assert device.contents() == [b"content"]


def both_hash_algorithms_are_checked():
    for hashes in [["sha256"], ["sha512"], ["sha512", "sha256"]]:
        repository = Repository(hashes=hashes)
        repository.add_target("a/file", b"content")
        repository.publish()
        with Server(repository) as address:
            device = Device(repository, address)
            repository.target_files["a/file"] = b"c0ntent"
            device.expect(1, device.download("a/file"))
            assert device.contents() == []
            repository.target_files["a/file"] = b"content"
            device.expect(0, device.download("a/file"))


def odd_names_are_found():
    names = ["../a", ".", "/", "ö", "a b", "a?b#c", "100%", "a%20b", "x\\y", "a/b/c", "'\"", "+=&"]
    repository = Repository()
    for number, name in enumerate(names):
        repository.delegate(name, "ed25519", paths=[f"{number}/*"])
        repository.add_target(f"{number}/{name.replace('/', '_')}", name.encode(), name)
    repository.publish()
    with Server(repository) as address:
        device = Device(repository, address)
        wanted = [f"{number}/{name.replace('/', '_')}" for number, name in enumerate(names)]
        device.expect(0, device.download(*wanted))
        assert device.contents() == sorted(name.encode() for name in names)
        assert not (device.folder / "a.json").exists()
        assert device.stored()["..%2Fa.json"] == repository.files["1.../a.json"]


def hash_prefixes_and_bins_lead_to_their_role():
    repository = Repository()
    for digit in "0123456789abcdef":
        repository.delegate(f"bin-{digit}", "ecdsa", prefixes=[digit])
    check_bins(repository, lambda path: f"bin-{sha256(path)[0]}")
    for bits in [1, 4, 5, 9]:
        repository = Repository()
        bins = repository.delegate_bins(bits, "bin", "ed25519")
        check_bins(repository, bins.get_role_for_target)


def check_bins(repository, role_of):
    paths = [f"files/{number}.tgz" for number in range(8)]
    for path in paths:
        repository.add_target(path, path.encode(), role_of(path))
    repository.publish()
    with Server(repository) as address:
        device = Device(repository, address)
        device.expect(0, device.download(*paths))
        assert device.contents() == [path.encode() for path in paths]
        device.expect(1, device.download("files/absent"))


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def cached_target_is_not_fetched_again():
    repository = Repository()
    repository.add_target("file", b"content")
    repository.publish()
    with Server(repository) as address:
        device = Device(repository, address)
        device.expect(0, device.download("file", "file"))
        device.expect(0, device.download("file"))
        fetched = [path for path in repository.asked if path.startswith("/targets/")]
        assert len(fetched) == 1, fetched
        repository.add_target("file", b"other")
        repository.bump("targets")
        repository.publish()
        device.expect(0, device.download("file"))
        assert device.contents() == [b"other"]


def a_faked_clock_expires_metadata():
    repository = Repository()
    repository.publish()
    with Server(repository) as address:
        device = Device(repository, address)
        device.expect(1, device.refresh(faketime="+31d"))
        assert "5.3.10" in device.last.stderr, device.last.stderr
        assert list(device.stored()) == ["root.json"]
        device.expect(0, device.refresh(faketime="+29d"))


def a_clock_that_stands_at_another_date_is_believed():
    repository = Repository()
    repository.expires = datetime(2021, 2, 15, tzinfo=timezone.utc)
    for part in [repository.root, repository.timestamp, repository.snapshot, repository.roles["targets"]]:
        part.signed.expires = repository.expires
    repository.put_root()
    repository.add_target("file", b"content")
    repository.publish()
    with Server(repository) as address:
        device = Device(repository, address)
        device.expect(1, device.refresh())
        assert "5.3.10" in device.last.stderr, device.last.stderr
        device.expect(0, device.download("file", faketime="@2021-02-14 23:59:58"))
        device.expect(1, device.refresh(faketime="@2021-02-15 00:00:01"))


def an_id_that_signs_twice_is_refused_as_python_refuses_it():
    repository = Repository()
    repository.publish()
    envelope = json.loads(repository.files["timestamp.json"])
    envelope["signatures"] *= 2
    repository.files["timestamp.json"] = json.dumps(envelope).encode()
    try:
        Metadata.from_bytes(repository.files["timestamp.json"])
    except DeserializationError:
        pass
    else:
        raise AssertionError("python-tuf reads it by now")
    with Server(repository) as address:
        device = Device(repository, address)
        device.expect(1, device.refresh())
        assert "listed twice" in device.last.stderr, device.last.stderr


def old_metadata_served_again_is_refused():
    repository = Repository()
    repository.publish()
    old = repository.copy_state()
    repository.publish()
    with Server(repository) as address:
        device = Device(repository, address)
        device.expect(0, device.refresh())
        new, repository.files = repository.files, old
        device.expect(1, device.refresh())
        assert "5.4.3" in device.last.stderr, device.last.stderr
        repository.files = new
        device.expect(0, device.refresh())


def python_accepts_what_we_make(ours):
    """The same metadata for both clients: python-tuf's reads all that our builders wrote."""
    for name in ["consistent", "plain"]:
        folder = Path(ours) / name
        root = (folder / "metadata/1.root.json").read_bytes()
        state = Path(tempfile.mkdtemp(prefix="interop-"))
        (state / "metadata").mkdir()
        (state / "targets").mkdir()
        with Server(Folder(folder)) as address:
            updater = Updater(
                str(state / "metadata"),
                f"{address}/metadata/",
                str(state / "targets"),
                f"{address}/targets/",
                bootstrap=root,
            )
            updater.refresh()
            for path in (folder / "wanted").read_text().split():
                info = updater.get_targetinfo(path)
                assert info is not None, f"{name}: {path}"
                content = Path(updater.download_target(info)).read_bytes()
                assert content == path.encode(), f"{name}: {path}"
            try:
                found = updater.get_targetinfo("models/other/1.0.0/manifest.json")
            except RepositoryError as error:
                raise AssertionError(error) from error
            assert found is None, "a path that was delegated to nobody"


class Folder:
    """A repository that lies on disk."""

    def __init__(self, folder):
        self.folder = folder

    def answer(self, path):
        file = self.folder / path.lstrip("/")
        return file.read_bytes() if file.is_file() else None


SCENARIOS = [
    every_key_type_signs_every_role,
    keys_of_other_types_replace_each_other,
    trusted_metadata_is_stored_byte_exactly,
    both_hash_algorithms_are_checked,
    odd_names_are_found,
    hash_prefixes_and_bins_lead_to_their_role,
    cached_target_is_not_fetched_again,
    a_faked_clock_expires_metadata,
    a_clock_that_stands_at_another_date_is_believed,
    an_id_that_signs_twice_is_refused_as_python_refuses_it,
    old_metadata_served_again_is_refused,
]


def main():
    global CLIENT
    parser = argparse.ArgumentParser()
    parser.add_argument("--client", required=True)
    parser.add_argument("--ours")
    args = parser.parse_args()
    CLIENT = os.path.abspath(args.client)
    with tempfile.TemporaryDirectory(prefix="interop-") as tempfile.tempdir:
        for scenario in SCENARIOS:
            scenario()
            print(f"ok {scenario.__name__}")
        if args.ours:
            python_accepts_what_we_make(args.ours)
            print("ok python_accepts_what_we_make")


if __name__ == "__main__":
    sys.exit(main())
