# SPDX-License-Identifier: Apache-2.0
"""A small repository of signed RPM packages, made on the spot: what a system of the RPM family has, by name.

The packages are hollow but for what a build looks at: a shell, accounts, a kernel's name, what makes boot images. They
are built by rpmbuild, signed by a key that is made for them, and indexed by createrepo_c.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.process import find_tool
from coppice.testing.repodata import updateinfo

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.testing.repodata import MadeUpAdvisory

KERNEL = "5.14.0-1.x86_64"
_SECONDS = 120
_ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\\nnobody:x:65534:65534::/:/sbin/nologin\\n"
_GROUP = "root:x:0:\\nwheel:x:10:\\nnobody:x:65534:\\n"
_SHADOW = "root:!*:19000::::::\\nnobody:!*:19000::::::\\n"
_APPLETS = ("sh", "cat", "head", "mkdir", "sed", "grep", "test", "rm", "cp", "ls", "date", "env", "chmod")
_POLICY = (
    "/.* system_u:object_r:default_t:s0\\n"
    "/etc/.* system_u:object_r:etc_t:s0\\n"
    "/etc/shadow -- system_u:object_r:shadow_t:s0\\n"
    "/usr/bin(/.*)? system_u:object_r:bin_t:s0\\n"
)
_GETENT = (
    "#!/bin/sh\\n"
    'base=$1; shift; [ "$1" != -- ] || shift\\n'
    "[ $# -gt 0 ] || exec cat /etc/$base\\n"
    'status=0; for name in "$@"; do grep "^$name:" /etc/$base || status=2; done; exit $status\\n'
)
_DRACUT = '#!/bin/sh\\nfor last in "$@"; do :; done\\nhead -c 300000 /dev/zero > "$last"\\n'
_MKIMAGE = (
    '#!/bin/sh\\nwhile [ $# -gt 0 ]; do [ "$1" != -o ] || out=$2; shift; done\\nhead -c 40960 /dev/zero > "$out"\\n'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HollowPackage:
    r"""A package.

    Attributes:
        name: Its name.
        version: Its version; the release is 1.
        needs: What it requires.
        provides: By which names it goes, too.
        files: Text by path; ``\n`` in it is a line break, and a path in ``/usr/bin`` can be run.
        links: Targets of symbolic links, by path.
        copies: Files of this machine, by path.
        script: Run when it is installed.
        architecture: Its architecture.
    """

    name: str
    version: str = "1.0"
    needs: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    script: str = ""
    architecture: str = "x86_64"

    def spec(self) -> str:
        """Return it as rpmbuild reads it."""
        lines = [f"Name: {self.name}", f"Version: {self.version}", "Release: 1", f"Summary: The package {self.name}"]
        lines += ["License: Apache-2.0", f"BuildArch: {self.architecture}" if self.architecture == "noarch" else ""]
        lines += [f"Requires: {each}" for each in self.needs]
        lines += [f"Provides: {each}" for each in self.provides]
        lines += ["AutoReqProv: no", "%description", "Made by a test.", "%install"]
        for path, text in self.files.items():
            quoted = text.replace("%", "%%%%").replace("'", "'\\''")
            lines += [f'install -d "%{{buildroot}}$(dirname {path})"', f"printf '{quoted}' > %{{buildroot}}{path}"]
            lines += [f"chmod 755 %{{buildroot}}{path}"] if path.startswith("/usr/bin/") else []
        for path, source in self.copies.items():
            lines += [f"install -D -m 755 {source} %{{buildroot}}{path}"]
        for path, target in self.links.items():
            lines += [f'install -d "%{{buildroot}}$(dirname {path})"', f"ln -s {target} %{{buildroot}}{path}"]
        lines += ["%post", self.script] if self.script else []
        lines += ["%files", *self.files, *self.links, *self.copies]
        return "\n".join(lines) + "\n"


def system_packages(names: Iterable[str]) -> tuple[HollowPackage, ...]:
    """Return hollow packages that go by these ``names``; those that a build looks into have what it looks for."""
    wanted = set(names)
    shell = HollowPackage(
        name="busybox",
        provides=("/bin/sh",),
        copies={"/usr/bin/busybox": "/bin/busybox"},
        links={
            **{f"/usr/bin/{name}": "busybox" for name in _APPLETS},
            "/bin": "usr/bin",
            "/sbin": "usr/bin",
            "/usr/sbin": "bin",
            "/lib": "usr/lib",
        },
        files={
            "/etc/passwd": _ACCOUNTS,
            "/etc/group": _GROUP,
            "/etc/shadow": _SHADOW,
            "/etc/os-release": "ID=hollow\\nVERSION_ID=9\\n",
            "/etc/selinux/config": "SELINUX=enforcing\\nSELINUXTYPE=targeted\\n",
            "/etc/selinux/targeted/contexts/files/file_contexts": _POLICY,
            "/etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\\n",
            "/usr/bin/getent": _GETENT,
            "/usr/bin/tar": "#!/bin/sh\\nexec busybox tar -x -p -f - -C /\\n",
        },
    )
    special = (
        HollowPackage(
            name="kernel-core", needs=("busybox",), files={f"/usr/lib/modules/{KERNEL}/vmlinuz": "a kernel\\n"}
        ),
        HollowPackage(
            name="grub2-tools",
            needs=("busybox",),
            provides=("dracut", "grub2-pc-modules"),
            files={
                "/usr/bin/dracut": _DRACUT,
                "/usr/bin/grub2-mkimage": _MKIMAGE,
                "/usr/lib/grub/i386-pc/boot.img": "\\0" * 510 + "\\125\\252",
            },
        ),
        HollowPackage(
            name="cloud-init", needs=("busybox",), script="date -d @0 +%Y > /etc/script-ran\necho scripts run here"
        ),
    )
    known = {name for each in special for name in (each.name, *each.provides)}
    rest = HollowPackage(name="hollow-system", needs=("busybox",), provides=tuple(sorted(wanted - known)))
    return (shell, *special, rest)


class RpmRepository:
    """A repository in a folder, with a key of its own.

    Attributes:
        folder: Where it is.
        keyring: The public key, in ASCII armour.
        fingerprint: Of the key.
    """

    def __init__(self, folder: Path, work: Path) -> None:
        """Make the key.

        Args:
            folder: Of the repository.
            work: A directory to work in, with a short path: GnuPG's agent has a socket in it.
        """
        self.folder = folder
        self._work = work
        self._keys = work / "gnupg"
        self._keys.mkdir(parents=True, mode=0o700)
        self._gpg("--quick-gen-key", "--passphrase", "", "Hollow packages <hollow@example.org>", "rsa3072", "sign", "0")
        listed = self._gpg("--list-keys", "--with-colons")
        self.fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        self.keyring = work / "keyring.asc"
        self.keyring.write_text(self._gpg("--armor", "--export", self.fingerprint), encoding="ascii")

    def add(self, where: str, packages: Iterable[HollowPackage], *, signed_by: RpmRepository | None = None) -> None:
        """Build, sign and index ``packages`` in a folder of the repository.

        Args:
            where: The folder.
            packages: What is added to what is there.
            signed_by: Whose key signs; None: this one's.
        """
        self.add_unsigned(where, packages, index=False)
        key = signed_by or self
        place = self.folder / where
        fresh = [path for path in sorted(place.glob("*.rpm")) if not (self._work / f"{path.name}.done").exists()]
        # RPM of Debian looks for GnuPG under a name of old.
        values = (f"_gpg_name {key.fingerprint}", f"_gpg_path {key._keys}", f"__gpg {find_tool('gpg')}")  # noqa: SLF001 - its own kind
        define = [word for value in values for word in ("--define", value)]
        _run("rpmsign", *define, "--addsign", *map(str, fresh))
        for path in fresh:
            (self._work / f"{path.name}.done").touch()
        _run("createrepo_c", "--quiet", str(place))

    def add_unsigned(self, where: str, packages: Iterable[HollowPackage], *, index: bool = True) -> None:
        """Build ``packages`` into a folder of the repository, without a signature."""
        place = self.folder / where
        place.mkdir(parents=True, exist_ok=True)
        specs = []
        for package in packages:
            spec = self._work / f"{package.name}-{package.version}.spec"
            spec.write_text(package.spec(), encoding="utf-8")
            specs.append(str(spec))
        top = self._work / "rpmbuild"
        defines = {
            "_topdir": str(top),
            "_rpmdir": str(place),
            "_rpmfilename": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
            "_build_id_links": "none",
            "debug_package": "%{nil}",
            "__os_install_post": "%{nil}",
            "_binary_payload": "w1.gzdio",
        }
        words = [word for name, value in defines.items() for word in ("--define", f"{name} {value}")]
        if specs:
            _run("rpmbuild", "-bb", "--quiet", "--nodeps", *words, *specs)
        if index:
            for path in place.glob("*.rpm"):
                (self._work / f"{path.name}.done").touch()
            _run("createrepo_c", "--quiet", str(place))

    def advise(self, where: str, advisories: Iterable[MadeUpAdvisory]) -> None:
        """Say in the index of a folder what its updates are for; the next that is added there makes it unsaid."""
        said = self._work / "updateinfo.xml"
        said.write_bytes(updateinfo(advisories))
        _run("modifyrepo_c", "--mdtype=updateinfo", str(said), str(self.folder / where / "repodata"))

    def sign_index(self, where: str) -> None:
        """Lay a signature beside the index of a folder as it is now."""
        index = self.folder / where / "repodata" / "repomd.xml"
        Path(f"{index}.asc").unlink(missing_ok=True)
        self._gpg("--local-user", self.fingerprint, "--armor", "--detach-sign", str(index))

    def copy(self, folder: Path) -> RpmRepository:
        """Return the same repository, with the same key, in another folder, which is not there yet."""
        shutil.copytree(self.folder, folder)
        found = RpmRepository.__new__(RpmRepository)
        work = folder.with_name(f"{folder.name}-work")
        work.mkdir()
        for path in folder.rglob("*.rpm"):
            (work / f"{path.name}.done").touch()
        found.__dict__ |= {**self.__dict__, "folder": folder, "_work": work}
        return found

    @property
    def uri(self) -> str:
        """What `factory.mirror` is set to."""
        return f"file://{self.folder}"

    def close(self) -> None:
        """End GnuPG's agent."""
        subprocess.run(["gpgconf", "--homedir", str(self._keys), "--kill", "all"], check=False, timeout=_SECONDS)

    def _gpg(self, *words: str) -> str:
        argv = ["gpg", "--homedir", str(self._keys), "--batch", "--no-tty", "--quiet", "--pinentry-mode", "loopback"]
        return _run(*argv, *words)


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, check=False, timeout=_SECONDS)
    if done.returncode:
        message = f"{words[0]} failed: {(done.stdout + done.stderr).decode(errors='replace')[-4000:]}"
        raise RuntimeError(message)
    return done.stdout.decode()
