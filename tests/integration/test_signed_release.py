# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release of docs/releasing.md: signed with a key, installed by whoever has it, refused when changed."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
import threading
from typing import Any, Callable, Dict, Iterator, Sequence

import pytest

from tests.integration.harness import run

pytestmark = pytest.mark.skipif(not shutil.which("gpg"), reason="gpg is not installed, so nothing can be signed")

NAME = "ringrift.recovery"
MODULE = "plugins/modules/training_lock.py"
# Without the plus, what has no signature at all is good enough.
REQUIRED = ("--required-valid-signature-count", "+1")


class Galaxy(http.server.ThreadingHTTPServer):
    """What ansible-galaxy asks a server for one collection: version 3 of the interface, one version, a download."""

    def __init__(self, tarball: pathlib.Path, signatures: Sequence[str] = ()) -> None:
        self.artifact = tarball.read_bytes()
        self.signatures = [{"signature": signature} for signature in signatures]
        self.version = json.loads(contents(tarball)["MANIFEST.json"])["collection_info"]["version"]
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/api/"

    def __enter__(self) -> Galaxy:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.server_close()

    def answer(self, path: str) -> Any:
        collection = "/api/v3/collections/ringrift/recovery/"
        base = f"{collection}versions/"
        if path == "/api/":
            return {"available_versions": {"v3": "v3/"}}
        if path == collection:
            return {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
        if path == base:
            data = [{"version": self.version, "href": f"{base}{self.version}/"}]
            return {"data": data, "meta": {"count": 1}, "links": {"next": None}}
        if path == f"{base}{self.version}/":
            return {
                "version": self.version,
                "href": path,
                "namespace": {"name": "ringrift"},
                "collection": {"name": "recovery"},
                "artifact": {"sha256": hashlib.sha256(self.artifact).hexdigest(), "size": len(self.artifact)},
                "download_url": f"{self.url}download/ringrift-recovery-{self.version}.tar.gz",
                "metadata": {"dependencies": {}},
                "signatures": self.signatures,
            }
        return {}


class _Answers(http.server.BaseHTTPRequestHandler):
    server: Galaxy

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/download/"):
            body, kind = self.server.artifact, "application/gzip"
        else:
            body, kind = json.dumps(self.server.answer(path)).encode(), "application/json"
        self.send_response(404 if body == b"{}" else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""


class Release:
    """A tarball, the signature of its manifest, and the public key on a keyring."""

    def __init__(self, root: pathlib.Path, folder: pathlib.Path, home: str) -> None:
        self.folder = folder
        self.environment = {
            "GNUPGHOME": home,
            "ANSIBLE_COLLECTIONS_PATH": str(folder / "installed"),
            "ANSIBLE_GALAXY_TOKEN_PATH": str(folder / "token"),
        }
        self.tarball = self.build(root, folder / "built")
        self.keyring = self.new_key("release@example.org")
        manifest = folder / "MANIFEST.json"
        manifest.write_bytes(contents(self.tarball)["MANIFEST.json"])
        self.signature = self.sign(manifest, "release@example.org")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run(*words, cwd=self.folder, **self.environment)

    def do(self, *words: str) -> None:
        done = self.run(*words)
        assert done.returncode == 0, done.stdout

    def build(self, source: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
        self.do("ansible-galaxy", "collection", "build", "--output-path", str(out), str(source))
        return next(out.glob("*.tar.gz"))

    def new_key(self, user: str) -> pathlib.Path:
        """Make a key; the keyring that users get, with its public part alone."""
        self.do("gpg", "--batch", "--passphrase", "", "--quick-generate-key", user, "ed25519", "sign", "1d")
        public, ring = self.folder / f"{user}.asc", self.folder / f"{user}.kbx"
        self.do("gpg", "--batch", "--armor", "--output", str(public), "--export", user)
        self.do("gpg", "--batch", "--show-keys", "--fingerprint", str(public))
        self.do("gpg", "--batch", "--no-default-keyring", "--keyring", str(ring), "--import", str(public))
        return ring

    def sign(self, manifest: pathlib.Path, user: str) -> pathlib.Path:
        signature = manifest.with_name(f"{user}.MANIFEST.json.asc")
        gpg = ("gpg", "--batch", "--local-user", user, "--detach-sign", "--armor")
        self.do(*gpg, "--output", str(signature), str(manifest))
        return signature

    def install(self, what: str, *options: str) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(self.folder / "installed", ignore_errors=True)
        return self.run("ansible-galaxy", "collection", "install", what, "-p", "installed", "--no-deps", *options)

    def install_signed(self, server: Galaxy, **options: str) -> subprocess.CompletedProcess[str]:
        """As docs/releasing.md says it, from a Galaxy server."""
        options = {"keyring": str(self.keyring), "signature": self.signature.as_uri(), **options}
        words = [word for name, value in options.items() if value for word in (f"--{name}", value)]
        return self.install(f"{NAME}:{server.version}", "-s", server.url, *words, *REQUIRED)

    def verify(self) -> subprocess.CompletedProcess[str]:
        words = ["--offline", "--keyring", str(self.keyring), "--signature", self.signature.as_uri(), *REQUIRED]
        return self.run("ansible-galaxy", "collection", "verify", NAME, *words)

    @property
    def installed(self) -> pathlib.Path:
        return self.folder / "installed/ansible_collections/ringrift/recovery"


def contents(tarball: pathlib.Path) -> Dict[str, bytes]:
    with tarfile.open(tarball) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}


def rewritten(tarball: pathlib.Path, change: Callable[[Dict[str, bytes]], None]) -> pathlib.Path:
    """A copy of the tarball with other contents, as someone in between would make it."""
    files = contents(tarball)
    change(files)
    path = tarball.with_name("changed.tar.gz")
    with tarfile.open(tarball) as archive, tarfile.open(path, "w:gz") as copy:
        for member in archive:
            data = files.get(member.name, b"")
            member.size = len(data) if member.isfile() else 0
            copy.addfile(member, io.BytesIO(data) if member.isfile() else None)
    return path


def change_module(files: Dict[str, bytes]) -> None:
    files[MODULE] += b"# one more line\n"


def change_module_and_list(files: Dict[str, bytes]) -> None:
    """As before, and the list of files has its new hash."""
    change_module(files)
    listed = json.loads(files["FILES.json"])
    entry = next(entry for entry in listed["files"] if entry["name"] == MODULE)
    entry["chksum_sha256"] = hashlib.sha256(files[MODULE]).hexdigest()
    files["FILES.json"] = json.dumps(listed, indent=True).encode()


def change_everything(files: Dict[str, bytes]) -> None:
    """As before, and the manifest has the new hash of the list."""
    change_module_and_list(files)
    manifest = json.loads(files["MANIFEST.json"])
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(files["FILES.json"]).hexdigest()
    files["MANIFEST.json"] = json.dumps(manifest, indent=True).encode()


@pytest.fixture(scope="module")
def release(root, tmp_path_factory) -> Iterator[Release]:
    # The path of the agent's socket must be short.
    home = tempfile.mkdtemp(prefix="gpg")
    try:
        yield Release(root, tmp_path_factory.mktemp("release"), home)
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env={**os.environ, "GNUPGHOME": home}, check=False)
        shutil.rmtree(home, ignore_errors=True)


def test_a_signed_release_is_installed_and_proven_later(release):
    with Galaxy(release.tarball) as server:
        done = release.install_signed(server)
    assert done.returncode == 0, done.stdout
    assert (release.installed / MODULE).is_file()
    done = release.verify()
    assert done.returncode == 0, done.stdout
    change = release.installed / MODULE
    change.write_text(change.read_text() + "# one more line\n")
    done = release.verify()
    assert done.returncode != 0
    assert MODULE in done.stdout


def test_the_signature_of_the_server_does_as_well(release):
    with Galaxy(release.tarball, [release.signature.read_text()]) as server:
        done = release.install_signed(server, signature="")
    assert done.returncode == 0, done.stdout
    assert (release.installed / MODULE).is_file()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_module, "Checksum mismatch"),
        (change_everything, "signature verification failed"),
    ],
    ids=["a file", "a file and the lists"],
)
def test_a_changed_tarball_is_refused(release, change, words):
    with Galaxy(rewritten(release.tarball, change)) as server:
        done = release.install_signed(server)
    assert done.returncode != 0
    assert words in done.stdout
    assert not release.installed.exists()


def test_a_changed_list_of_files_is_found_by_verify(release):
    """``install`` compares the files with the list, but not the list with the manifest: hence the second command."""
    changed = rewritten(release.tarball, change_module_and_list)
    with Galaxy(changed) as server:
        release.install_signed(server)
    done = release.verify()
    assert done.returncode != 0
    assert "FILES.json" in done.stdout


@pytest.mark.parametrize("change", [None, change_module_and_list, change_everything])
def test_a_tarball_at_hand_is_installed_and_then_verified(release, change):
    """``install --signature`` of ansible-core cannot do it with a tarball."""
    tarball = rewritten(release.tarball, change) if change else release.tarball
    done = release.install(str(tarball), "--offline")
    assert done.returncode == 0, done.stdout
    assert (release.verify().returncode == 0) == (change is None)


def test_without_a_good_signature_nothing_is_installed(release):
    stranger = release.new_key("stranger@example.org")
    forged = release.sign(release.folder / "MANIFEST.json", "stranger@example.org")
    with Galaxy(release.tarball) as server:
        for options in ({"signature": forged.as_uri()}, {"keyring": str(stranger)}, {"signature": ""}):
            done = release.install_signed(server, **options)
            assert done.returncode != 0, options
            assert "signature verification failed" in done.stdout
            assert not release.installed.exists()


def test_two_builds_hold_the_same(release, root):
    again = contents(release.build(root, release.folder / "again"))
    first = contents(release.tarball)
    assert first == again
    listed = {entry["name"]: entry["chksum_sha256"] for entry in json.loads(first["FILES.json"])["files"]}
    assert listed[MODULE] == hashlib.sha256(first[MODULE]).hexdigest()
