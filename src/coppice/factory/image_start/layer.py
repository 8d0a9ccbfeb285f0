# SPDX-License-Identifier: Apache-2.0
"""What is changed in an image's tree, as a layer over it: made in the namespaces in which trees are made.

The image's kernel and boot loader stay as they are: only the running system could make them anew, which knows its disk.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.factory.bootstrap.tree import TreeMaker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from coppice.factory.bootstrap.tree import Made

LEFT_ALONE = r"(linux-(image|modules|headers|generic|virtual|kvm|lowlatency|aws|azure|gcp)|grub|shim)[a-z0-9.+-]*"
"""Names of packages that are neither installed nor brought up to date."""
_LEFT_ALONE = re.compile(LEFT_ALONE)
# The image's own sources of packages are its machines' affair: what is built here comes from where the site says.
# In the tree itself: a link of the image's could lead out of it.
_HIDE_SOURCES = 'chroot "$1" sh -c "rm -f -- /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources"'
_PACKAGES = r"""
alone=$(chroot "$1" dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' |
  sed -n -E 's/^installed (%(alone)s)$/\1/p' | sort -u)
held=" $(chroot "$1" apt-mark showhold | tr '\n' ' ') "
[ -z "$alone" ] || chroot "$1" apt-mark hold $alone >/dev/null || exit 1
APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes -oDPkg::Chroot-Directory="$1" dist-upgrade -- %(packages)s || exit 1
for each in $alone; do
  case "$held" in *" $each "*) ;; *) chroot "$1" apt-mark unhold "$each" >/dev/null || exit 1 ;; esac
done"""


def is_left_alone(package: str) -> bool:
    """Tell whether a package is of the kernel or the boot loader."""
    return _LEFT_ALONE.fullmatch(package) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLayerMaker(TreeMaker):
    """Makes layers over the trees of finished images."""

    def make_over(
        self, layer: Path, packages: Sequence[str], provision: str | None, on_failure: Callable[[], None]
    ) -> Made:
        """Make the layer over ``layer`` in which packages are brought up to date and ``packages`` are added.

        Args:
            layer: The image's tree.
            packages: To be installed, where they are not.
            provision: A hook that does the rest; None: there is none.
            on_failure: Called when it failed, before anything else is said of it.

        Raises:
            BuildError: It could not be made.
            NoSpaceError: The disk is full.
        """
        hooks = [_PACKAGES % {"alone": LEFT_ALONE, "packages": shlex.join(packages)}]
        if provision is not None:
            hooks.append(provision)
        return self._make(
            (str(layer),),
            "--variant=custom",
            f"--setup-hook={_HIDE_SOURCES}",
            *(f"--customize-hook={hook}" for hook in hooks),
            on_failure=on_failure,
        )
