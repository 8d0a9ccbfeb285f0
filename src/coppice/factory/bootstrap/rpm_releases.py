# SPDX-License-Identifier: Apache-2.0
"""What the bootstrap builder knows about releases of the RPM family: a literal table."""

from __future__ import annotations

from dataclasses import dataclass, replace

from coppice.errors import BuildError
from coppice.factory.bootstrap.processors import X86_64, Processor

_PACKAGES = (
    "NetworkManager",
    "ca-certificates",
    "chrony",
    "cloud-init",
    "cloud-utils-growpart",
    "dnf",
    "dracut",
    "dracut-config-generic",
    "e2fsprogs",
    "glibc-minimal-langpack",
    "grub2-efi-x64-modules",
    "grub2-pc-modules",
    "grub2-tools",
    "grub2-tools-minimal",
    "hostname",
    "iproute",
    "iputils",
    "kernel-core",
    "less",
    "nftables",
    "openssh-server",
    "passwd",
    "policycoreutils",
    "rootfiles",
    "selinux-policy-targeted",
    "sudo",
    "systemd",
    "systemd-udev",
    "vim-minimal",
)
_WITHOUT_PASSWD = tuple(package for package in _PACKAGES if package != "passwd")


@dataclass(frozen=True, slots=True, kw_only=True)
class RpmRelease:
    """A release of a distribution whose packages are RPMs.

    Attributes:
        name: What definitions call it (``operating-system.suite``).
        distribution: For people.
        version: What stands for ``$releasever``.
        platform: Identifier by which its modules go; empty: it has none.
        epoch: Seconds since 1970 of its release: the date of everything that a build itself makes.
        mirror: Where its makers serve it, as they serve it to everybody.
        repositories: Pairs of (name, path under a mirror).
        fingerprints: Of the OpenPGP keys that sign its packages.
        key_names: What files with these keys are called where distributions lay them.
        packages: Always installed, beside the package of the release itself.
        updates_package: What installs security updates by itself.
        updates_timer: The timer that starts it.
        database: The folder of the record of installed packages.
        processor: That it is for.
        signs_indices: Whether its makers promise a signature of each repository's index.
    """

    name: str
    distribution: str
    version: str
    platform: str
    epoch: int
    mirror: str
    repositories: tuple[tuple[str, str], ...]
    fingerprints: tuple[str, ...]
    key_names: tuple[str, ...]
    packages: tuple[str, ...] = _PACKAGES
    updates_package: str = "dnf-automatic"
    updates_timer: str = "dnf-automatic.timer"
    database: str = "/var/lib/rpm"
    processor: Processor = X86_64
    signs_indices: bool = False

    @property
    def record(self) -> str:
        """The file that says what is installed."""
        return f"{self.database}/rpmdb.sqlite"


def _enterprise(
    name: str, distribution: str, folder: str, *, package: str, likeness: RpmRelease, mirror: str
) -> RpmRelease:
    return replace(
        likeness,
        name=name,
        distribution=distribution,
        mirror=mirror,
        repositories=tuple(
            (repository.lower(), f"{folder}/{repository}/x86_64/os") for repository in ("BaseOS", "AppStream")
        ),
        packages=tuple(sorted((*likeness.packages, package))),
    )


_NINE = RpmRelease(
    name="9",
    distribution="",
    version="9",
    platform="platform:el9",
    epoch=1652745600,
    mirror="",
    repositories=(),
    fingerprints=(),
    key_names=(),
)
_TEN = replace(
    _NINE,
    name="10",
    version="10",
    platform="platform:el10",
    epoch=1747699200,
    packages=_WITHOUT_PASSWD,
    database="/usr/lib/sysimage/rpm",
)
_ALMALINUX = "https://repo.almalinux.org/almalinux"
_ROCKY = "https://dl.rockylinux.org/pub/rocky"
_CENTOS = "https://mirror.stream.centos.org"
_CENTOS_KEY = "99DB70FAE1D7CE227FB6488205B555B38483C65D"

_RELEASES = {
    release.name: release
    for release in (
        replace(
            _enterprise(
                "almalinux-9",
                "AlmaLinux 9",
                "9",
                package="almalinux-release",
                likeness=_NINE,
                mirror=_ALMALINUX,
            ),
            fingerprints=("BF18AC2876178908D6E71267D36CB86CB86B3716",),
            key_names=("alma/RPM-GPG-KEY-AlmaLinux-9", "RPM-GPG-KEY-AlmaLinux-9"),
        ),
        replace(
            _enterprise(
                "almalinux-10",
                "AlmaLinux 10",
                "10",
                package="almalinux-release",
                likeness=_TEN,
                mirror=_ALMALINUX,
            ),
            fingerprints=("EE6DB7B98F5BF5EDD9DA0DE5DEE5C11CC2A1E572",),
            key_names=("alma/RPM-GPG-KEY-AlmaLinux-10", "RPM-GPG-KEY-AlmaLinux-10"),
        ),
        replace(
            _enterprise("rocky-9", "Rocky Linux 9", "9", package="rocky-release", likeness=_NINE, mirror=_ROCKY),
            fingerprints=("21CB256AE16FC54C6E652949702D426D350D275D",),
            key_names=("rocky/RPM-GPG-KEY-Rocky-9", "RPM-GPG-KEY-Rocky-9"),
        ),
        replace(
            _enterprise("rocky-10", "Rocky Linux 10", "10", package="rocky-release", likeness=_TEN, mirror=_ROCKY),
            fingerprints=("FC226859C0860BF0DDB95B085B106C736FEDFC85",),
            key_names=("rocky/RPM-GPG-KEY-Rocky-10", "RPM-GPG-KEY-Rocky-10"),
        ),
        replace(
            _enterprise(
                "centos-stream-9",
                "CentOS Stream 9",
                "9-stream",
                package="centos-stream-release",
                likeness=_NINE,
                mirror=_CENTOS,
            ),
            fingerprints=(_CENTOS_KEY,),
            key_names=("centos/RPM-GPG-KEY-CentOS-Official", "RPM-GPG-KEY-centosofficial"),
        ),
        replace(
            _enterprise(
                "centos-stream-10",
                "CentOS Stream 10",
                "10-stream",
                package="centos-stream-release",
                likeness=_TEN,
                mirror=_CENTOS,
            ),
            fingerprints=(_CENTOS_KEY,),
            key_names=("centos/RPM-GPG-KEY-CentOS-Official-SHA256", "RPM-GPG-KEY-centosofficial-SHA256"),
        ),
        RpmRelease(
            name="fedora-44",
            distribution="Fedora 44",
            version="44",
            platform="",
            epoch=1777334400,
            mirror="https://dl.fedoraproject.org/pub/fedora/linux",
            repositories=(
                ("fedora", "releases/44/Everything/x86_64/os"),
                ("updates", "updates/44/Everything/x86_64"),
            ),
            fingerprints=("36F612DCF27F7D1A48A835E4DBFCF71C6D9F90A6",),
            key_names=("fedora/RPM-GPG-KEY-fedora-44-primary", "RPM-GPG-KEY-fedora-44-primary"),
            packages=tuple(sorted((*_WITHOUT_PASSWD, "fedora-release-cloud"))),
            updates_package="dnf5-plugin-automatic",
            updates_timer="dnf5-automatic.timer",
            database="/usr/lib/sysimage/rpm",
        ),
    )
}
# What these need is another version of rpm's record, or another loader, than this builder writes.
_NOT_HERE = ("almalinux-8", "rocky-8", "centos-stream-8", "opensuse-leap")


def is_rpm_release(name: str) -> bool:
    """Tell whether a suite is a release of the RPM family, be it one that is built or not."""
    return name in _RELEASES or name.startswith(_NOT_HERE)


def is_built_release(name: str) -> bool:
    """Tell whether a suite is a release of the RPM family that is built."""
    return name in _RELEASES


def find_release(name: str) -> RpmRelease:
    """Return the release ``name``.

    Raises:
        BuildError: The builder does not build it.
    """
    release = _RELEASES.get(name)
    if release is None:
        raise BuildError(
            f"the bootstrap builder does not build {name}: it writes neither its record of packages nor its boot menu",
            resolution=f"Of the RPM family it builds {', '.join(sorted(_RELEASES))}. For others, use the builder "
            "packer, or start from a finished image with the builder image.",
        )
    return release
