# SPDX-License-Identifier: Apache-2.0
"""What an image list costs to verify and to read, against ``openssl cms -verify`` on the same bytes in the same run.

    python benchmarks/lists.py [--json]

Prints a table, or with ``--json`` one line a figure: ``{"name", "figure", "goal", "holds"}``; exits 1 when a goal is
missed. Times are processor time; of several runs the shortest counts, for Coppice and OpenSSL alike. What Coppice does
is measured in a process of its own, whose greatest memory is the figure for memory.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES = 10_000
SIZES = (100, 1_000, 10_000, 100_000)
RUNS = 5
CPU_SECONDS_GOAL, RSS_MB_GOAL, EXPONENT_GOAL = 1.0, 200.0, 1.1
VERIFICATION_RATIO_GOAL, WHOLE_RATIO_GOAL = 1.0, 2.0
_MB = 1_000_000


def document(images: int) -> dict[str, Any]:
    """Return a list of that many images, each with every key that marketplaces write."""
    now = datetime.now(UTC).replace(microsecond=0)
    created, expires = (f"{each:%Y-%m-%dT%H:%M:%SZ}" for each in (now - timedelta(hours=1), now + timedelta(days=28)))
    return {
        "hv:imagelist": {
            "dc:date:created": created,
            "dc:date:expires": expires,
            "dc:identifier": str(uuid.UUID(int=1)),
            "dc:title": "Benchmark",
            "dc:description": f"{images} images",
            "dc:source": "https://lists.example.org/",
            "hv:version": "1.0.0",
            "hv:uri": "https://lists.example.org/demo.list",
            "ad:vo": "vo.example.org",
            "hv:images": [{"hv:image": image(number, expires)} for number in range(images)],
        }
    }


def image(number: int, expires: str) -> dict[str, str]:
    """Return image ``number``."""
    identifier = str(uuid.UUID(int=(number + 2) * 0x9E3779B97F4A7C15))
    return {
        "dc:identifier": identifier,
        "dc:title": f"Appliance {number} on Debian 12",
        "dc:description": "A minimal system with the tools that its users asked for",
        "dc:date:expires": expires,
        "hv:uri": f"https://lists.example.org/images/{identifier}.qcow2",
        "hv:format": "qcow2",
        "hv:size": str(700_000_000 + number),
        "hv:hypervisor": "KVM",
        "hv:version": f"2026.11.{number}",
        "hv:ram_minimum": "512",
        "hv:core_minimum": "1",
        "sl:checksum:sha512": f"{number:0128x}",
        "sl:arch": "x86_64",
        "sl:os": "Linux",
        "sl:osname": "Debian",
        "sl:osversion": "12",
        "sl:comments": "",
        "ad:group": "General",
        "ad:mpuri": f"https://marketplace.example.org/store/vm/image/{identifier}:{number}/",
        "ad:base_mpuri": f"https://marketplace.example.org/store/vm/image/{identifier}/",
        "ad:appid": str(number % 500),
        "ad:user:fullname": "Jane Doe",
        "ad:user:guid": str(uuid.UUID(int=number % 50)),
        "ad:user:uri": f"https://marketplace.example.org/store/person/{number % 50}",
        "ad:ram_recommended": "1024",
        "ad:core_recommended": "2",
    }


def prepare(directory: Path, sizes: tuple[int, ...]) -> None:
    """Write trust anchors, and for each size a signed list, into ``directory``."""
    from coppice.testing.authority import Authority
    from coppice.testing.simulator import Simulator

    authority = Authority.create("Example CA")
    publisher = Simulator.create(authority)
    authority.write_to(directory)
    bundle = (directory / "ca.pem").read_bytes() + (directory / "ca.crl.pem").read_bytes()
    (directory / "bundle").write_bytes(bundle)
    names = {"hv:ca": str(publisher.endorser.issuer), "hv:dn": str(publisher.endorser.subject)}
    for size in sizes:
        content = document(size)
        content["hv:imagelist"]["hv:endorser"] = {
            "hv:x509": {"dc:creator": "Jane Doe", "hv:email": "jane@example.org", **names}
        }
        message = publisher.message(payload=json.dumps(content, indent=1).encode())
        (directory / f"{size}.list").write_bytes(message)
    (directory / "names.json").write_text(json.dumps(names))


def measure(directory: Path, size: int, runs: int) -> dict[str, float]:
    """Return, in seconds of processor time, what verification, reading and the whole cost; and the memory in MB."""
    from coppice.formats.cms import open_message
    from coppice.formats.hepix import read_list
    from coppice.formats.limits import ListLimits
    from coppice.model.endorser import DistinguishedName
    from coppice.model.identifiers import ListIdentifier
    from coppice.subscription.anchors import load_anchors
    from coppice.subscription.model import PinnedEndorser, Subscription, TrustPolicy
    from coppice.subscription.path import check_path
    from coppice.subscription.rules import verify_list

    message = (directory / f"{size}.list").read_bytes()
    names = json.loads((directory / "names.json").read_text())
    limits = ListLimits(size_bytes=max(len(message), ListLimits().size_bytes), images=max(size, ListLimits().images))
    anchors = load_anchors(directory / "bundle")
    now = datetime.now(UTC)
    pinned = PinnedEndorser(
        subject=DistinguishedName.parse(names["hv:dn"]), issuer=DistinguishedName.parse(names["hv:ca"])
    )
    subscription = Subscription(
        name="benchmark",
        uri="https://lists.example.org/demo.list",
        list_identifier=ListIdentifier(str(uuid.UUID(int=1))),
        trust=TrustPolicy(endorsers=(pinned,), anchors=directory / "bundle"),
        added_at=now,
    )

    def whole() -> None:
        verified = verify_list(message, subscription=subscription, anchors=anchors, last=None, now=now, limits=limits)
        if len(verified.content.images) != size:
            message_text = f"{len(verified.content.images)} images were read, not {size}"
            raise AssertionError(message_text)

    def verification() -> None:
        opened = open_message(message, limits=limits)
        check_path(
            opened.signer_certificate,
            opened.other_certificates,
            anchors,
            trust=subscription.trust,
            dates_at=now,
            now=now,
        )

    figures = {"whole": shortest(whole, runs)}
    # Before anything else takes memory.
    figures["rss_mb"] = peak_rss_mb()
    figures["verification"] = shortest(verification, runs)
    payload = open_message(message, limits=limits).payload
    figures["reading"] = shortest(lambda: read_list(payload, limits=limits), runs)
    figures["json"] = shortest(lambda: json.loads(payload), runs)
    return figures


def peak_rss_mb() -> float:
    """Return the greatest memory of this process, in MB.

    Not what ``getrusage`` says: that is at least what the parent had when it made this process.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / _MB


def shortest(work: Callable[[], object], runs: int) -> float:
    """Return the processor time of the quickest of ``runs`` runs, in seconds."""
    figures = []
    for _ in range(runs):
        before = time.process_time()
        work()
        figures.append(time.process_time() - before)
    return min(figures)


def openssl_seconds(directory: Path, size: int, runs: int) -> float:
    """Return the processor time of ``openssl cms -verify`` with revocation checked, the quickest of ``runs`` runs."""
    argv = ["openssl", "cms", "-verify", "-in", str(directory / f"{size}.list"), "-inform", "SMIME"]
    argv += ["-CAfile", str(directory / "bundle"), "-no-CApath", "-no-CAstore", "-purpose", "any", "-crl_check_all"]
    figures = []
    for _ in range(runs):
        before = os.times()
        subprocess.run([*argv, "-out", os.devnull], check=True, capture_output=True)
        after = os.times()
        figures.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(figures)


def in_child(directory: Path, size: int, runs: int) -> dict[str, float]:
    """Return what `measure` finds in a process of its own."""
    argv = [sys.executable, __file__, "--measure", str(directory), str(size), str(runs)]
    completed = subprocess.run(argv, check=True, stdout=subprocess.PIPE)
    figures: dict[str, float] = json.loads(completed.stdout)
    return figures


def exponent(costs: dict[int, float]) -> float:
    """Return the exponent of the power law that fits ``costs`` (size → seconds) best."""
    points = [(math.log(size), math.log(cost)) for size, cost in costs.items()]
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def table(directory: Path) -> list[dict[str, object]]:
    """Measure everything; return the rows."""
    prepare(directory, SIZES)
    figures = {size: in_child(directory, size, RUNS if size <= IMAGES else 2) for size in SIZES}
    openssl = openssl_seconds(directory, IMAGES, RUNS)
    main_figures = figures[IMAGES]
    whole = {size: each["whole"] for size, each in figures.items()}
    goals = [
        (f"{IMAGES} images verified and read: CPU seconds", main_figures["whole"], CPU_SECONDS_GOAL),
        (f"{IMAGES} images verified and read: peak RSS in MB", main_figures["rss_mb"], RSS_MB_GOAL),
        (f"exponent of the cost, {SIZES[0]} to {SIZES[-1]} images", exponent(whole), EXPONENT_GOAL),
        (
            f"exponent of the cost, {SIZES[-2]} to {SIZES[-1]} images",
            exponent({size: whole[size] for size in SIZES[-2:]}),
            EXPONENT_GOAL,
        ),
        ("verification alone / openssl cms -verify", main_figures["verification"] / openssl, VERIFICATION_RATIO_GOAL),
        (
            "the whole / (openssl cms -verify + json.loads)",
            main_figures["whole"] / (openssl + main_figures["json"]),
            WHOLE_RATIO_GOAL,
        ),
    ]
    rows: list[dict[str, object]] = [
        {"name": name, "figure": round(figure, 3), "goal": goal, "holds": figure <= goal}
        for name, figure, goal in goals
    ]
    for name, figure in (
        ("openssl cms -verify: CPU seconds", openssl),
        ("json.loads: CPU seconds", main_figures["json"]),
        ("verification alone: CPU seconds", main_figures["verification"]),
        ("reading alone: CPU seconds", main_figures["reading"]),
        *((f"{size} images: CPU microseconds an image", cost / size * 1e6) for size, cost in whole.items()),
    ):
        rows.append({"name": name, "figure": round(figure, 3), "goal": None, "holds": True})
    return rows


def main() -> int:
    """Measure and print; return the exit code."""
    if sys.argv[1:2] == ["--measure"]:
        directory, size, runs = sys.argv[2:5]
        print(json.dumps(measure(Path(directory), int(size), int(runs))))
        return 0
    with tempfile.TemporaryDirectory() as name:
        rows = table(Path(name))
    as_json = "--json" in sys.argv[1:]
    if not as_json:
        print(f"{'figure':<52} {'value':>10} {'goal':>8}  holds")
    for row in rows:
        if as_json:
            print(json.dumps(row))
        else:
            goal = "" if row["goal"] is None else str(row["goal"])
            held = "" if row["goal"] is None else "yes" if row["holds"] else "NO"
            print(f"{row['name']:<52} {row['figure']:>10} {goal:>8}  {held}")
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
