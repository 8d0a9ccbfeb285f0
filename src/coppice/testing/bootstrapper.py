# SPDX-License-Identifier: Apache-2.0
"""A stand-in for mmdebstrap, and images made with it: small trees with all that the factory looks for in a system.

It runs where the real one would, in the same namespaces, and does what two shell scripts say that a test may write
anew: ``base.sh`` for a tree from nothing, ``child.sh`` for a layer over one. Hooks are not run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DISK_BYTES = 192 * 1024**2
"""Large enough for these trees."""
_STAND_IN = """\
#!/bin/sh -e
# What mmdebstrap would do: a tree from nothing, or whatever the test wants done in its child's.
: <<'END'
    my $mirror = 'http://mirror.example/debian';
END
for word; do
  case "$word" in
  --variant=minbase) kind=base ;;
  --variant=custom) kind=child ;;
  */space/root) root="$word" ;;
  esac
done
[ "$kind" ] || {{ echo "mmdebstrap 1.3.5"; exit 0; }}
[ "$(cut -d' ' -f1 /proc/self/stat)" -lt 1000 ] || exit 9
. {place}/$kind.sh
"""
BASE = """\
echo "I: making the base"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants" "$root/usr/bin" "$root/usr/lib/grub/i386-pc" \\
  "$root/boot/grub/i386-pc" "$root/boot/grub/x86_64-efi" "$root/var/lib/dpkg" "$root/data" "$root/run" "$root/tmp" \\
  "$root/etc/ssh" "$root/var/log"
echo "VERSION_CODENAME=bookworm" > "$root/etc/os-release"
for name in base cloud-init openssh-server nftables; do
  printf 'Package: %s\\nStatus: install ok installed\\nArchitecture: amd64\\nVersion: 1\\n\\n' "$name"
done > "$root/var/lib/dpkg/status"
{ head -c 510 /dev/zero; printf '\\125\\252'; } > "$root/usr/lib/grub/i386-pc/boot.img"
head -c 4096 /dev/zero | tr '\\0' 'x' > "$root/boot/grub/i386-pc/core.img"
head -c 4096 /dev/zero | tr '\\0' 'y' > "$root/boot/grub/x86_64-efi/core.efi"
for number in $(seq 50); do seq $number 2000 > "$root/data/$number"; done
ln "$root/data/1" "$root/data/one"
ln -s data/1 "$root/link"
ln -s "$(printf '%0100d' 7)" "$root/long-link"
echo '#!/bin/sh' > "$root/usr/bin/tool"
chmod 4755 "$root/usr/bin/tool"
echo program > "$root/usr/bin/capable"
setcap cap_net_raw+ep "$root/usr/bin/capable"
chown 7:8 "$root/data/2"
echo "signed" > "$root/var/lib/apt/lists/mirror_dists_bookworm_InRelease"
"""
CHILD = ""


def lay_bootstrapper(place: Path) -> Path:
    """Make the stand-in in the new directory ``place``, which a test puts first in ``PATH``; return it."""
    place.mkdir()
    program = place / "mmdebstrap"
    program.write_text(_STAND_IN.format(place=place), encoding="ascii")
    program.chmod(0o755)
    (place / "base.sh").write_text(BASE, encoding="ascii")
    (place / "child.sh").write_text(CHILD, encoding="ascii")
    return place
