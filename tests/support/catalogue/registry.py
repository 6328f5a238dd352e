"""A stand-in for an image registry that is asked over plain HTTP, as containerd does for addresses of the loopback.

What it answers depends on the first part of the repository's name: ``absent`` has no such tag, ``denied`` wants a
login, ``flaky`` fails twice and then serves one image, ``broken`` always fails.
Usage: registry.py PORT ARCHIVE, the archive being an OCI layout in a tar file.
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

FAILURES = 2


class Registry(BaseHTTPRequestHandler):
    """Answers the few requests of a pull."""

    protocol_version = "HTTP/1.1"
    # Shared by the instances, of which each connection gets one.
    blobs: ClassVar[dict[str, bytes]] = {}
    manifest: ClassVar[str] = ""
    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        """Serve a manifest or a blob, or fail as the repository's name says."""
        parts = self.path.strip("/").split("/")
        if parts == ["v2"]:
            return self.answer(200, b"{}")
        behaviour, what = parts[1], parts[-2]
        if behaviour == "denied":
            return self.refuse(401, "UNAUTHORIZED", "authentication required")
        if behaviour == "absent":
            return self.refuse(404, "MANIFEST_UNKNOWN", "manifest unknown")
        if what == "manifests":
            self.asked[behaviour] += 1
            if behaviour == "broken" or self.asked[behaviour] <= FAILURES:
                return self.refuse(500, "UNKNOWN", "the registry is being upgraded")
        digest = self.manifest if what == "manifests" and not parts[-1].startswith("sha256:") else parts[-1]
        kind = "application/vnd.oci.image.manifest.v1+json" if what == "manifests" else "application/octet-stream"
        return self.answer(200, self.blobs[digest], kind, digest)

    # A registry is asked whether there is a manifest before it is asked for it.
    do_HEAD = do_GET

    def answer(self, status: int, body: bytes, kind: str = "application/json", digest: str = "") -> None:
        """Send an answer; only its head for HEAD."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str) -> None:
        """Send an error in the registry's form."""
        self.answer(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode())

    def log_message(self, format: str, *args: object) -> None:  # the base class names it so
        """Be quiet."""


def main() -> None:
    """Serve until killed."""
    with tarfile.open(sys.argv[2]) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            if member.name.startswith("blobs/sha256/") and file is not None:
                Registry.blobs["sha256:" + member.name.rpartition("/")[2]] = file.read()
        index = archive.extractfile("index.json")
        assert index is not None
        Registry.manifest = json.load(index)["manifests"][0]["digest"]
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Registry).serve_forever()


if __name__ == "__main__":
    main()
