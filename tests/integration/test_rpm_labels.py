# SPDX-License-Identifier: Apache-2.0
"""Labels of SELinux as libselinux itself gives them."""

from __future__ import annotations

import stat
import subprocess

import pytest

from coppice.factory.bootstrap.listing import Kind
from coppice.factory.bootstrap.rpm_labels import CONTEXTS, SUBSTITUTES, Labels

pytestmark = pytest.mark.integration

FILE_CONTEXTS = r"""
/.*                             system_u:object_r:default_t:s0
/                       -d      system_u:object_r:root_t:s0
/bin                    -l      system_u:object_r:bin_t:s0
/boot/.*                        system_u:object_r:boot_t:s0
/boot/vmlinu.*          -l      system_u:object_r:boot_link_t:s0
/dev/null               -c      system_u:object_r:null_device_t:s0
/etc/.*                         system_u:object_r:etc_t:s0
/etc/(passwd|group)[-+]?  --    system_u:object_r:passwd_file_t:s0
/etc/\.pwd\.lock        --      system_u:object_r:shadow_t:s0
/etc/shadow.*           --      system_u:object_r:shadow_t:s0
/etc/localtime          -l      system_u:object_r:locale_t:s0
/etc/cron\.(daily|hourly)(/.*)? system_u:object_r:cron_t:s0
/etc/rc\.d/rc[0-6S]\.d/.*  -l   system_u:object_r:rc_link_t:s0
/proc                   -d      <<none>>
/usr/.*                         system_u:object_r:usr_t:s0
/usr/(.*/)?bin(/.*)?            system_u:object_r:bin_t:s0
/usr/(.*/)?lib(/.*)?            system_u:object_r:lib_t:s0
/usr/lib/systemd/system(/.*)?   system_u:object_r:unit_t:s0
/usr/lib(64)?/.+\.so(\.[^/]*)*  --  system_u:object_r:shared_t:s0
/usr/bin/sudo           --      system_u:object_r:sudo_exec_t:s0
/usr/bin/s?udo2?        --      system_u:object_r:odd_exec_t:s0
/var/lib/x|/var/lib/y           system_u:object_r:either_t:s0
/var/log/.+\+\+         --      system_u:object_r:plus_t:s0
"""
HOMEDIRS = (
    "/home/[^/]+/\\.ssh(/.*)?  system_u:object_r:ssh_home_t:s0\n/home/[^/]+  -d  system_u:object_r:home_dir_t:s0\n"
)
LOCAL = "/etc/motd  --  system_u:object_r:local_t:s0\n"
ALIASES = "/run /var/run\n/srv/etc /etc\n/usr/lib/old /usr/lib\n"
OWN_ALIASES = "/export/home /home\n"
PATHS = [
    "/",
    "/x",
    "/bin",
    "/boot/vmlinuz",
    "/boot/vmlinuz-5.14",
    "/etc",
    "/etc/motd",
    "/etc/passwd",
    "/etc/passwd-",
    "/etc/passwd++",
    "/etc/group+",
    "/etc/.pwd.lock",
    "/etc/xpwdxlock",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/localtime",
    "/etc/cron.daily",
    "/etc/cron.daily/a",
    "/etc/cron.weekly",
    "/etc/rc.d/rc3.d/S1",
    "/etc/rc.d/rcX.d/S1",
    "/proc",
    "/usr",
    "/usr/bin",
    "/usr/bin/ls",
    "/usr/bin/sudo",
    "/usr/bin/udo",
    "/usr/bin/sudo2",
    "/usr/local/bin/x",
    "/usr/binary",
    "/usr/lib/systemd/system/a.service",
    "/usr/lib64/libc.so.6",
    "/usr/lib/a.so",
    "/usr/lib/old/systemd/system/b.service",
    "/srv/etc/shadow",
    "/srv/etcetera",
    "/run/x",
    "/home/me",
    "/home/me/.ssh",
    "/home/me/.ssh/id",
    "/export/home/me",
    "/export/home/me/.ssh/id",
    "/var/lib/x",
    "/var/lib/y",
    "/var/lib/z",
    "/var/log/c++",
    "/var/log/c",
]
KINDS = {Kind.FILE: stat.S_IFREG, Kind.DIRECTORY: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK}


def test_every_path_has_the_label_that_libselinux_gives_it(tmp_path):
    texts = (FILE_CONTEXTS, HOMEDIRS, LOCAL, OWN_ALIASES, ALIASES)
    for name, text in zip((*CONTEXTS, *SUBSTITUTES), texts, strict=True):
        (tmp_path / name).write_text(text)
    labels = Labels(texts[:3], texts[3:])
    differing = []
    for path in PATHS:
        for kind, mode in KINDS.items():
            words = ["selabel_lookup", "-b", "file", "-r", "-f", tmp_path / CONTEXTS[0], "-k", path, "-t", str(mode)]
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
            wanted = done.stdout.strip().removeprefix("Default context: ") or None
            if labels.label(path, kind) != wanted:
                differing.append((path, kind.value, wanted, labels.label(path, kind)))
    assert differing == []
