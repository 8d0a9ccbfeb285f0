# SPDX-License-Identifier: Apache-2.0
"""OpenStack Swift with its S3 API on loopback: one device, one replica; it verifies signatures and digests.

Swift is no dependency of the project: it gets a virtual environment of its own below the clone's ``.cache``, made when
it is first needed and kept.
"""

from __future__ import annotations

import fcntl
import getpass
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from coppice.errors import CoppiceError
from coppice.factory.ports import free_port
from coppice.testing.publishing.server import TRANSFER, PublishingServer, listens

SWIFT = "swift==2.38.3"
CACHE = Path(__file__).parents[4] / ".cache" / "swift-2.38.3"
ACCESS_KEY, SECRET_KEY = "test:tester", "testing"
BUCKET = "images"
_STORES = ("account", "container", "object")
# The time limits are long: an update of a listing that misses its own would be left to a process that does not run.
_STORE = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {directory}
devices = {directory}/devices
mount_check = false
workers = 0
log_address = {directory}/no-log
conn_timeout = 20
node_timeout = 60
container_update_timeout = 60
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
fallocate_reserve = 0
"""
_RINGS = """
import sys
from swift.common.ring import RingBuilder
for word in sys.argv[2:]:
    kind, port = word.split("=")
    builder = RingBuilder(4, 1, 1)
    device = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 1.0, "meta": ""}
    builder.add_dev({**device, "id": 0, "replication_ip": "127.0.0.1", "replication_port": int(port)})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""
_PIPELINE = "catch_errors cache listing_formats bulk s3api tempauth slo dlo proxy-server"
_PROXY = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {directory}
workers = 0
log_address = {directory}/no-log
[pipeline:main]
pipeline = {pipeline}
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 20
node_timeout = 60
recoverable_node_timeout = 60
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
min_segment_size = 5242880
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""


class SwiftServer(PublishingServer):
    """Swift: proxy, account, container and object servers."""

    _client: Any = None

    def start(self) -> None:
        """Make rings and configuration, start all four, and make the bucket."""
        programs = swift_programs()
        # Swift's paths go into socket names and extended attributes: long ones, as tests have, do not always fit.
        self._scratch = Path(tempfile.mkdtemp(prefix="coppice-swift-"))
        directory = self._scratch
        (directory / "devices" / "d1").mkdir(parents=True)
        (directory / "swift.conf").write_text(
            "[swift-hash]\nswift_hash_path_suffix = suffix\nswift_hash_path_prefix = prefix\n"
            "[storage-policy:0]\nname = gold\ndefault = yes\n",
            encoding="utf-8",
        )
        user = getpass.getuser()
        ports = {kind: free_port() for kind in _STORES}
        # All rings in one go: each run of Swift's own program takes a second to load.
        words = [f"{kind}={port}" for kind, port in ports.items()]
        subprocess.run([str(programs / "python"), "-c", _RINGS, str(directory), *words], check=True)
        for kind, port in ports.items():
            self._configure(kind, _STORE.format(port=port, user=user, directory=directory, kind=kind))
            self._serve(programs, kind)
        for kind, port in ports.items():
            # The proxy answers without them, and would say to the first request that the service is unavailable.
            self.wait_until(partial(listens, port), log=directory / f"{kind}.log")
        self.port = free_port()
        self._configure(
            "proxy",
            _PROXY.format(port=self.port, user=user, directory=directory, pipeline=_PIPELINE, secret=SECRET_KEY),
        )
        self._serve(programs, "proxy")
        self.wait_until(self._answers, log=directory / "proxy.log")
        for name, secret in (("access", ACCESS_KEY), ("secret", SECRET_KEY)):
            path = self.directory / name
            path.write_text(secret + "\n", encoding="ascii")
            path.chmod(0o600)
        self.client().create_bucket(Bucket=BUCKET)

    def stop(self) -> None:
        """End all four, and remove what they kept."""
        super().stop()
        scratch = getattr(self, "_scratch", None)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)

    def options(self, area: str) -> dict[str, object]:
        """Return the options of a publisher that writes below a prefix."""
        return {
            "endpoint": f"http://127.0.0.1:{self.port}",
            "bucket": BUCKET,
            "prefix": area,
            "access_key_file": str(self.directory / "access"),
            "secret_key_file": str(self.directory / "secret"),
            "part_size": 5 * 1024 * 1024,
            "timeout": 30,
        }

    def fetch(self, uri: str) -> bytes | None:
        """Return an object by its URL, as one of its account."""
        client = self.client()
        key = uri.split(f"/{BUCKET}/", 1)[1]
        try:
            data: bytes = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        except client.exceptions.NoSuchKey:
            return None
        return data

    def size(self, uri: str) -> int | None:
        """Return an object's size."""
        client = self.client()
        try:
            return int(client.head_object(Bucket=BUCKET, Key=uri.split(f"/{BUCKET}/", 1)[1])["ContentLength"])
        except client.exceptions.ClientError as problem:
            if problem.response["Error"]["Code"] == "404":
                return None
            raise

    def leftovers(self, area: str) -> list[str]:
        """Return uploads in parts that were neither completed nor aborted."""
        found = self.client().list_multipart_uploads(Bucket=BUCKET, Prefix=f"{area}/")
        return sorted(str(upload["Key"]) for upload in found.get("Uploads", ()))

    def client(self) -> Any:
        """Return boto3's client with the account's keys."""
        if self._client is not None:
            return self._client
        import boto3
        from botocore.config import Config

        self._client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(
                s3={"addressing_style": "path"},
                proxies={},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        return self._client

    def _answers(self) -> bool:
        from coppice.http.client import Client

        try:
            url = f"http://127.0.0.1:{self.port}/info"
            Client(TRANSFER).request("GET", url, expected=(200,), limit_bytes=1024 * 1024)
        except CoppiceError:
            return False
        return True

    def _configure(self, kind: str, text: str) -> None:
        (self._scratch / f"{kind}.conf").write_text(text, encoding="utf-8")

    def _serve(self, programs: Path, kind: str) -> None:
        argv = [str(programs / f"swift-{kind}-server"), str(self._scratch / f"{kind}.conf"), "-v"]
        self.run(argv, log=self._scratch / f"{kind}.log", environment={"SWIFT_DIR": str(self._scratch)})


def swift_programs() -> Path:
    """Return the folder of Swift's programs; they are installed when they are missing."""
    programs, ready = CACHE / "venv" / "bin", CACHE / "ready"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        # Two test runs at once: the second waits, and finds it done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(CACHE / "venv")], check=True)
            pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, SWIFT], check=True)
            ready.touch()
    return programs
