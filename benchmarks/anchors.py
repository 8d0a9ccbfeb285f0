# SPDX-License-Identifier: Apache-2.0
"""What a path costs in a grid directory of trust anchors: doubles of all real authorities, with policies and CRLs.

    python benchmarks/anchors.py [DIRECTORY] [--json]

DIRECTORY is the real one, ``/etc/grid-security/certificates``, unless told otherwise. Prints a table of CPU time,
as a multiple of what ``openssl verify`` takes for the same path; or with ``--json`` one line a figure:
``{"name", "figure", "goal", "holds"}``. Exits 1 when a goal is missed.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from coppice.formats.names import subject_hashes
from coppice.subscription import anchors as anchors_module
from coppice.subscription.anchors import AnchorShelf, load_anchors
from coppice.subscription.model import TrustPolicy
from coppice.subscription.path import check_path
from coppice.testing.igtf import clone_directory

if TYPE_CHECKING:
    from collections.abc import Callable

REAL = Path("/etc/grid-security/certificates")
DAY = timedelta(days=1)
OPENSSL = "openssl verify"
OIDS = {"c": "2.5.4.6", "cn": "2.5.4.3", "dc": "0.9.2342.19200300.100.1.25", "o": "2.5.4.10", "ou": "2.5.4.11"}
GOALS = {"first path, nothing read before": 10.0, "path, directory looked at again": 2.0, "path, in one run": 1.0}
"""How many times the CPU of ``openssl verify`` of the same path, CRLs included, in the same run."""


def milliseconds(work: Callable[[], object], times: int, before: Callable[[], object] = lambda: None) -> float:
    """Return the median of CPU milliseconds."""
    taken = []
    for _ in range(times):
        before()
        started = time.process_time()
        work()
        taken.append((time.process_time() - started) * 1000)
    return statistics.median(taken)


def openssl_milliseconds(leaf: x509.Certificate, directory: Path, times: int) -> float:
    """Return the median of CPU milliseconds of ``openssl verify``."""
    place = directory / "leaf"
    place.write_bytes(leaf.public_bytes(Encoding.PEM))
    argv = ["openssl", "verify", "-crl_check_all", "-no-CAfile", "-no-CAstore", "-CApath", str(directory)]
    taken = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*argv, "-purpose", "any", str(place)], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000)
    return statistics.median(taken)


def measure(real: Path, directory: Path) -> dict[str, float]:
    """Return the figures, in CPU milliseconds; OpenSSL's is the first."""
    now = datetime.now(UTC)
    clones = clone_directory(real, directory)
    for clone in clones:
        crl = clone.authority.crl(last_update=now - DAY, next_update=now + DAY)
        (directory / f"{subject_hashes(clone.original.subject)[0]}.r0").write_bytes(crl.public_bytes(Encoding.PEM))
    clone = next(each for each in clones if len(each.path) > 1 and each.instant(now) == now)
    rules = load_anchors(directory).namespaces.rules[clone.authority.identity.subject]
    base = next(each.rule.subject.attributes for each in rules if each.rule.subject.open_end)
    pairs = [(x509.ObjectIdentifier(OIDS[kind]), value) for kind, value in (*base, ("cn", "Robot"))]
    subject = x509.Name([x509.NameAttribute(*pair) for pair in pairs])
    leaf = clone.authority.issue("", subject=subject)
    trust = TrustPolicy(endorsers=(), anchors=directory)
    shelf = AnchorShelf()

    def check(load: Callable[[Path], anchors_module.TrustAnchors]) -> None:
        check_path(leaf.certificate, leaf.chain, load(directory), trust=trust, dates_at=now, now=now)

    names = iter(GOALS)
    return {
        OPENSSL: openssl_milliseconds(leaf.certificate, directory, 9),
        next(names): milliseconds(lambda: check(load_anchors), 9, anchors_module.forget_anchors),
        next(names): milliseconds(lambda: check(load_anchors), 25),
        next(names): milliseconds(lambda: check(shelf.load), 25),
    }


def main() -> int:
    """Measure and print."""
    given = [each for each in sys.argv[1:] if each != "--json"]
    with tempfile.TemporaryDirectory() as directory:
        figures = measure(Path(given[0]) if given else REAL, Path(directory))
    unit = figures.pop(OPENSSL)
    print(f"{OPENSSL:40} {unit:8.1f} ms of CPU", file=sys.stderr)
    for name, figure in figures.items():
        holds = figure <= GOALS[name] * unit
        if "--json" in sys.argv:
            print(json.dumps({"name": name, "figure": round(figure / unit, 2), "goal": GOALS[name], "holds": holds}))
        else:
            said = "holds" if holds else "MISSED"
            print(f"{name:40} {figure:8.1f} ms of CPU, {figure / unit:.2f} of OpenSSL's; goal {GOALS[name]}: {said}")
    return 0 if all(figure <= GOALS[name] * unit for name, figure in figures.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
