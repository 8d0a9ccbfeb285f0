# SPDX-License-Identifier: Apache-2.0
"""Simplestreams documents in the shape in which Ubuntu, and the image servers of LXD and Incus, publish them.

Every name, field and nesting is as theirs; the contents are made up.
"""

from __future__ import annotations

import hashlib
import json
from email.utils import format_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

Json = dict[str, object]
RELEASES = {
    "noble": ("24.04", "24.04 LTS", "Noble Numbat", "2029-05-31"),
    "jammy": ("22.04", "22.04 LTS", "Jammy Jellyfish", "2027-06-01"),
}


def written(document: Json) -> bytes:
    """Return a document as publishers write it: one space an indent."""
    return json.dumps(document, indent=1, sort_keys=True).encode("ascii") + b"\n"


def index(contents: Mapping[str, Json], *, updated: datetime | None) -> Json:
    """Return an index of streams."""
    found: Json = {"format": "index:1.0", "index": dict(contents)}
    if updated is not None:
        found["updated"] = format_datetime(updated)
    return found


def entry(path: str, products: Json, *, datatype: str = "image-downloads", updated: datetime | None) -> Json:
    """Return what an index says of one stream."""
    named = products["products"]
    assert isinstance(named, dict)
    found: Json = {"datatype": datatype, "format": "products:1.0", "path": path, "products": sorted(named)}
    if updated is not None:
        found["updated"] = format_datetime(updated)
    return found


def products(content_id: str, found: Mapping[str, Json], *, updated: datetime | None, **more: object) -> Json:
    """Return the products of a stream."""
    document: Json = {
        "content_id": content_id,
        "datatype": "image-downloads",
        "format": "products:1.0",
        "products": dict(found),
        **more,
    }
    if updated is not None:
        document["updated"] = format_datetime(updated)
    return document


def item(ftype: str, path: str, data: bytes, **more: object) -> Json:
    """Return a file of a version, as Ubuntu's have it."""
    return {
        "ftype": ftype,
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "path": path,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        **more,
    }


def ubuntu_product(release: str, arch: str, versions: Mapping[str, bytes], *, stream: str = "releases") -> Json:
    """Return a product of Ubuntu's: its versions' disks are ``versions``, other files lie beside them."""
    version, title, codename, support = RELEASES[release]
    found: Json = {}
    for name, disk in versions.items():
        start = f"server/{stream}/{release}/release-{name}"
        image = f"{start}/ubuntu-{version}-server-cloudimg-{arch}"
        tarball = item("lxd.tar.xz", f"{image}-lxd.tar.xz", b"lxd" + disk)
        pair = hashlib.sha256(b"lxd" + disk + disk).hexdigest()
        found[name] = {
            "items": {
                "disk1.img": item("disk1.img", f"{image}.img", disk),
                "lxd.tar.xz": {**tarball, "combined_disk1-img_sha256": pair, "combined_squashfs_sha256": pair},
                "manifest": item("manifest", f"{image}.manifest", b"bash 5"),
                "ova": item("ova", f"{image}.ova", b"ova" + disk),
                "root.tar.xz": item("root.tar.xz", f"{image}-root.tar.xz", b"root" + disk),
                "squashfs": item("squashfs", f"{image}.squashfs", b"squash" + disk),
            },
            "label": "release",
            "pubname": f"ubuntu-{release}-{version}-{arch}-server-{name}",
        }
    return {
        "aliases": f"{version},{release},default,lts",
        "arch": arch,
        "os": "ubuntu",
        "release": release,
        "release_codename": codename,
        "release_title": title,
        "support_eol": support,
        "supported": True,
        "version": version,
        "versions": found,
    }


def lxd_product(system: str, release: str, arch: str, versions: Mapping[str, bytes]) -> Json:
    """Return a product of an image server of LXD's: a container and a virtual machine a version, and a delta."""
    found: Json = {}
    start = f"images/{system.lower()}/{release}/{arch}/default"
    for name, disk in versions.items():
        metadata = item("lxd.tar.xz", f"{start}/{name}/lxd.tar.xz", b"meta")
        found[name] = {
            "items": {
                "lxd.tar.xz": {
                    **_without_md5(metadata),
                    "combined_disk-kvm-img_sha256": hashlib.sha256(b"meta" + disk).hexdigest(),
                    "combined_squashfs_sha256": hashlib.sha256(b"metaroot").hexdigest(),
                },
                "root.squashfs": _without_md5(item("squashfs", f"{start}/{name}/rootfs.squashfs", b"root")),
                "disk.qcow2": _without_md5(item("disk-kvm.img", f"{start}/{name}/disk.qcow2", disk)),
                "disk.20250101_00:00.qcow2.vcdiff": {
                    **_without_md5(item("disk-kvm.img.vcdiff", f"{start}/{name}/delta.vcdiff", b"delta")),
                    "delta_base": "20250101_00:00",
                },
            }
        }
    return {
        "aliases": f"{system.lower()}/{release}/default,{system.lower()}/{release}",
        "arch": arch,
        "os": system,
        "release": release,
        "release_title": release,
        "requirements": {"secureboot": "false"},
        "variant": "default",
        "versions": found,
    }


def _without_md5(found: Json) -> Json:
    return {name: value for name, value in found.items() if name != "md5"}
