# SPDX-License-Identifier: Apache-2.0
"""Fuzz the reader of image lists: whatever the bytes, only declared errors; what is read can be written and read again.

    python tests/fuzz/fuzz_list.py -max_total_time=300 [CORPUS] [options of libFuzzer]

Without CORPUS a throw-away one is used. Seeds are written into it, and a dictionary of the
format's keys beside it.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import atheris

with atheris.instrument_imports(include=["coppice"]):
    from coppice.errors import CoppiceError
    from coppice.formats.hepix import read_list, write_list
    from coppice.formats.hepix_check import find_problems
    from coppice.formats.limits import ListLimits
    from coppice.imagelist.model import Profile
    from coppice.model.endorser import DistinguishedName

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = ListLimits(size_bytes=1024 * 1024, images=50, text_bytes=4096, title_bytes=256)
OPTIONS = ("-max_len=16384", "-timeout=20", "-rss_limit_mb=1024", "-print_final_stats=1")
_SELDOM = 16
IMAGE = {
    "dc:identifier": "8a1f2f60-0f0c-4c49-8b43-2f4a9be7c1d2",
    "dc:title": "Debian 12",
    "dc:description": "minimal",
    "dc:date:expires": "2027-05-22T10:00:00.5+01:00",
    "hv:uri": "https://lists.example.org/debian12.qcow2",
    "hv:format": "qcow2",
    "hv:size": "734003200",
    "sl:checksum:sha512": "ab" * 64,
    "hv:hypervisor": "KVM",
    "hv:version": "2026.11.22-rc1",
    "hv:ram_minimum": 512,
    "hv:core_minimum": "1",
    "sl:arch": "x86_64",
    "sl:os": "Linux",
    "sl:osname": "Debian",
    "sl:osversion": "12",
    "sl:comments": "",
    "ad:group": "General, Server",
    "ad:mpuri": "https://mp.example.org/8a1f:77/",
    "ad:appid": "1234",
    "ad:user:fullname": "Jane Doe",
    "ad:traffic_in": [{"ports": "22"}],
    "coppice:disk_minimum": 2147483648,
}
NAMES = {
    "dc:creator": "Jane Doe",
    "hv:email": "jane@example.org",
    "hv:ca": "CN=Example \\2C CA+UID=x,DC=example,DC=org",
    "hv:dn": "/DC=org/CN=host\\/x.example.org/emailAddress=j@x\\xC3\\xB6",
}
LIST: dict[str, Any] = {
    "dc:date:created": "2026-11-22T10:00:00Z",
    "dc:date:expires": "2026-12-20T10:00:00Z",
    "dc:identifier": "2f1c0d3e-6f4a-4a39-9b0e-4d1a7c0b9f11",
    "dc:title": "Example list",
    "dc:description": "Test images",
    "dc:source": "https://lists.example.org/",
    "hv:version": "0.0.7",
    "hv:uri": "https://lists.example.org/image.list",
    "ad:vo": "vo.example.org",
    "ad:swid": 4,
    "ad:num_of_images": "1",
    "hv:endorser": {"hv:x509": NAMES},
    "hv:images": [{"hv:image": IMAGE}],
}


def seeds() -> Iterator[bytes]:
    """Yield lists of each form that is read, and traps."""
    yield json.dumps({"hv:imagelist": LIST}).encode()
    yield json.dumps(LIST, indent=1).encode().replace(b"\n", b"\r\n")
    several = copy.deepcopy(LIST)
    several["hv:endorser"] = [{"hv:x509": NAMES}, {"hv:x509": {**NAMES, "hv:dn_x509": NAMES["hv:dn"]}}]
    yield json.dumps({"hv:imagelist": several, "xx:new": [1.5, None]}).encode()
    lenient = {key: LIST[key] for key in ("dc:date:created", "dc:date:expires", "hv:images")}
    yield json.dumps({"hv:imagelist": {**lenient, "dc:identifier": "site"}}, ensure_ascii=False).encode()
    yield json.dumps({"hv:imagelist": {**LIST, "hv:images": [{"hv:image": {**IMAGE, "hv:size": "abc"}}]}}).encode()
    yield b'{"hv:imagelist": {"a": 1, "a": [NaN, 1e999, "\\ud800"]}}'
    yield b'{"hv:images": []}'


def one_input(data: bytes) -> None:
    """Read ``data``; whatever is not a `CoppiceError` ends the run."""
    for profile in Profile:
        try:
            content = read_list(data, profile=profile, limits=LIMITS)
        except CoppiceError:
            if len(data) % _SELDOM == 0:
                assert find_problems(data, profile=profile, limits=LIMITS).content is None
            continue
        assert find_problems(data, profile=profile, limits=LIMITS).content == content
        if not content.unreadable:
            again = read_list(write_list(content), profile=profile)
            assert again == content
    try:
        name = DistinguishedName.parse(data[:200].decode("utf-8", "ignore"))
    except ValueError:
        return
    assert DistinguishedName.parse(str(name)) == name


def prepare(corpus: Path) -> Path:
    """Write the seeds into ``corpus`` and return the dictionary, beside it."""
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = {*LIST, *IMAGE, *NAMES, "hv:imagelist", "hv:image", "hv:x509", "hv:dn_x509", "\\\\u00e9", "true", "null"}
    dictionary = corpus.parent / f"{corpus.name}.dict"
    dictionary.write_text("".join(f'"{word}"\n' for word in sorted(words)))
    return dictionary


def main() -> int:
    """Run libFuzzer; it ends the process itself."""
    options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    corpora = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if not corpora:
        with tempfile.TemporaryDirectory() as directory:
            return subprocess.call([sys.executable, __file__, *options, str(Path(directory) / "corpus")])
    dictionary = prepare(Path(corpora[0]))
    atheris.Setup([sys.argv[0], *OPTIONS, f"-dict={dictionary}", *options, *corpora], one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
