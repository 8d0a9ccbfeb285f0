# SPDX-License-Identifier: Apache-2.0
"""The external programs that Coppice uses: a literal table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """An external program: the Debian package that has it, and what Coppice needs it for."""

    name: str
    package: str
    purpose: str


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(name="mmdebstrap", package="mmdebstrap", purpose="building appliances of Debian and Ubuntu"),
        Tool(name="dnf", package="dnf", purpose="building appliances of the RPM family"),
        Tool(name="rpm", package="rpm", purpose="removing what was only needed to build appliances of the RPM family"),
        Tool(name="rpmkeys", package="rpm", purpose="checking the signatures of RPM packages"),
        Tool(name="unshare", package="util-linux", purpose="keeping a build's mounts and processes to itself"),
        Tool(name="mke2fs", package="e2fsprogs", purpose="making a file system without mounting it"),
        Tool(name="debugfs", package="e2fsprogs", purpose="filling and reading a file system without mounting it"),
        Tool(name="dumpe2fs", package="e2fsprogs", purpose="clearing what no file of a file system has"),
        Tool(name="zstd", package="zstd", purpose="unpacking the trees that appliances are built upon"),
        Tool(name="e2fsck", package="e2fsprogs", purpose="checking a file system without mounting it"),
        Tool(name="blkid", package="util-linux", purpose="telling what the partitions of an image hold"),
        Tool(name="sfdisk", package="fdisk", purpose="partitioning built images"),
        Tool(name="mkfs.vfat", package="dosfstools", purpose="making the EFI system partition"),
        Tool(name="mmd", package="mtools", purpose="filling the EFI system partition"),
        Tool(name="mcopy", package="mtools", purpose="filling the EFI system partition and boot seeds"),
        Tool(name="qemu-img", package="qemu-utils", purpose="converting and checking images"),
        Tool(
            name="qemu-aarch64-static",
            package="qemu-user-static",
            purpose="building appliances for arm64 on other machines",
        ),
        Tool(
            name="qemu-x86_64-static",
            package="qemu-user-static",
            purpose="building appliances for amd64 on other machines",
        ),
        Tool(name="qemu-system-x86_64", package="qemu-system-x86", purpose="boot tests"),
        Tool(name="ssh", package="openssh-client", purpose="logging in to booted appliances"),
        Tool(
            name="ssh-keygen",
            package="openssh-client",
            purpose="keys of boot tests, signatures of git commits",
        ),
        Tool(name="bwrap", package="bubblewrap", purpose="shutting in what reads images of others, and provisioners"),
        Tool(name="mdir", package="mtools", purpose="looking into FAT file systems of images"),
        Tool(name="xfs_db", package="xfsprogs", purpose="looking into XFS file systems of images"),
        Tool(name="btrfs", package="btrfs-progs", purpose="looking into btrfs file systems of images"),
        Tool(name="mkfs.btrfs", package="btrfs-progs", purpose="making a btrfs file system without mounting it"),
        Tool(name="packer", package="packer", purpose="appliances that are built in a running machine"),
        Tool(name="openssl", package="openssl", purpose="a second opinion on signatures"),
        Tool(name="git", package="git", purpose="definitions that come from git"),
        Tool(name="gpgv", package="gpgv", purpose="OpenPGP signatures (simplestreams, files, git commits, packages)"),
    )
}
