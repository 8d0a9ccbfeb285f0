# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: FBT003 - the calls of the interface take booleans by their places
"""The simulator of OpenNebula does what was seen of a real one beyond the recordings, and fails on demand."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
import xmlrpc.client
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pytest

from coppice.cloud.transports.by_http import HttpTransport
from coppice.cloud.transports.by_path import PathTransport
from coppice.monitor import SILENT
from coppice.testing.contracts.transports import CONTENT, converted_bytes
from coppice.testing.opennebula import Act, Code, Copying, Fault, OpenNebulaSimulator, State, When
from coppice.testing.opennebula.faults import ENDLESS_BYTES
from coppice.testing.server import LoopbackServer, cut, in_turn, serve, status, without_length

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

WAIT_SECONDS = 60
RAW = os.urandom(1024) * 3000
LOOKS = 8


class RefusedError(Exception):
    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Client:
    """Asks as plain XML-RPC does, without pyone's classes."""

    def __init__(self, simulator: OpenNebulaSimulator, session: str = "oneadmin:secret") -> None:
        self._proxy = xmlrpc.client.ServerProxy(simulator.endpoint)
        self._session = session

    def __call__(self, method: str, *parameters: object) -> Any:
        answer = getattr(self._proxy, method)(self._session, *parameters)
        if not answer[0]:
            raise RefusedError(answer[1], answer[2])
        return answer[1]

    def image(self, identifier: int) -> ET.Element:
        return ET.fromstring(self("one.image.info", identifier))  # noqa: S314 - the simulator's own


@pytest.fixture
def safe(tmp_path) -> Path:
    path = tmp_path / "images"
    path.mkdir()
    (path / "disk.raw").write_bytes(RAW)
    return path


@pytest.fixture
def simulator(tmp_path, safe) -> Iterator[OpenNebulaSimulator]:
    with OpenNebulaSimulator(tmp_path / "one", safe_directories=str(safe)) as running:
        yield running


@pytest.fixture
def one(simulator) -> Client:
    return Client(simulator)


def described(path: object, name: str = "a", **attributes: str) -> str:
    inner = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in attributes.items())
    return f"<TEMPLATE><NAME>{escape(name)}</NAME><PATH>{escape(str(path))}</PATH>{inner}</TEMPLATE>"


def asked(simulator: OpenNebulaSimulator, method: str, *parameters: object) -> bytes:
    """Ask once, and never again: `xmlrpc.client` comes back when a connection breaks."""
    body = xmlrpc.client.dumps((simulator.session, *parameters), method).encode()
    request = urllib.request.Request(simulator.endpoint, data=body)  # noqa: S310 - it is on loopback
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=WAIT_SECONDS) as answer:
        data: bytes = answer.read()
        return data


def reach(simulator: OpenNebulaSimulator, image: int, *states: State) -> State:
    until = time.monotonic() + WAIT_SECONDS
    while (found := simulator.image(image).state) not in states:
        assert time.monotonic() < until, simulator.image(image)
        time.sleep(0.01)
    return found


def stored(simulator: OpenNebulaSimulator, image: int) -> bytes:
    written = simulator.image(image).written
    assert written is not None
    return written.read_bytes()


# -- templates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ['"', "\\", "ends with \\", "a\nb", "]", "[x=1,y=2]", "# not a comment", "<b>&amp;</b>", "é ü 🌲", "  x  ", "=,"],
)
def test_a_value_in_xml_comes_back_as_it_was(simulator, one, safe, value):
    identifier = one("one.image.allocate", described(safe / "disk.raw", DESCRIPTION=value), 1)
    assert one.image(identifier).findtext("TEMPLATE/DESCRIPTION") == value


def test_a_value_that_ends_a_cdata_section_is_refused(one, safe):
    with pytest.raises(RefusedError, match="transforming the Image to XML"):
        one("one.image.allocate", described(safe / "disk.raw", DESCRIPTION="a]]>b"), 1)


def test_in_the_text_form_a_value_that_ends_in_a_backslash_lets_the_next_one_name_attributes(simulator, one, safe):
    text = f'NAME="a"\nDESCRIPTION="x\\"\nTITLE=" PERSISTENT=YES #"\nPATH="{safe / "disk.raw"}"'
    identifier = one("one.image.allocate", text, 1)
    assert simulator.image(identifier).persistent is True
    assert one.image(identifier).findtext("TEMPLATE/DESCRIPTION") == 'x"\nTITLE='


def test_the_text_form_takes_an_unterminated_quote_as_a_word(simulator, one, safe):
    identifier = one("one.image.allocate", described(safe / "disk.raw"), 1)
    one("one.image.update", identifier, 'MYVAR="1', 1)
    assert one.image(identifier).findtext("TEMPLATE/MYVAR") == '"1'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('NAME "x"', "unexpected VARIABLE, expecting EQUAL or EQUAL_EMPTY at line 0, columns 7:8"),
        ("= x", "Parse error: syntax error, unexpected EQUAL"),
        ("A=[B=1", "Parse error: syntax error, unexpected end of file"),
        ('A="x]]>y"', "Parse error"),
        ("<TEMPLATE><A>", "XML Template malformed"),
        ('<!DOCTYPE x [<!ENTITY y "z">]><T><A>&y;</A></T>', "XML Template malformed"),
    ],
)
def test_what_cannot_be_read_is_refused(one, text, words):
    with pytest.raises(RefusedError) as caught:
        one("one.image.allocate", text, 1)
    assert words in str(caught.value)
    assert caught.value.code == Code.INTERNAL


def test_an_update_that_merges_leaves_the_rest_and_one_that_replaces_does_not(one, safe):
    identifier = one("one.image.allocate", described(safe / "disk.raw", A="1", B="2"), 1)
    one("one.image.update", identifier, "<T><B>3</B></T>", 1)
    found = one.image(identifier)
    assert (found.findtext("TEMPLATE/A"), found.findtext("TEMPLATE/B")) == ("1", "3")
    one("one.image.update", identifier, "<T><C>4</C></T>", 0)
    found = one.image(identifier)
    assert [each.tag for each in found.iterfind("TEMPLATE/*")] == ["C"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("", "cannot be empty"), ("a&b", "char '&' is not allowed"), ("x" * 129, "max length is 128"), ("ü" * 65, "128")],
)
def test_names_that_no_object_can_have_are_refused(one, safe, name, words):
    with pytest.raises(RefusedError) as caught:
        one("one.image.allocate", described(safe / "disk.raw", name), 1)
    assert words in str(caught.value)
    assert caught.value.code == Code.ALLOCATE


# -- images --------------------------------------------------------------------------------------------


def test_a_file_is_really_copied_and_removed_with_its_image(simulator, one, safe):
    identifier = one("one.image.allocate", described(safe / "disk.raw"), 1)
    reach(simulator, identifier, State.READY)
    assert stored(simulator, identifier) == RAW
    written = simulator.image(identifier).written
    assert written is not None
    one("one.image.delete", identifier)
    assert not written.exists()
    assert simulator.stray_files() == []


@pytest.mark.parametrize(("algorithm", "attribute"), [("md5", "MD5"), ("sha1", "SHA1")])
@pytest.mark.parametrize("is_right", [True, False])
def test_a_checksum_that_is_given_is_compared(simulator, one, safe, algorithm, attribute, is_right):  # noqa: PLR0917 - fixtures
    digest = hashlib.new(algorithm, RAW if is_right else b"other").hexdigest()
    identifier = one("one.image.allocate", described(safe / "disk.raw", **{attribute: digest}), 1)
    state = reach(simulator, identifier, State.READY, State.ERROR)
    assert state is (State.READY if is_right else State.ERROR)
    if not is_right:
        assert "Hash does not match" in (one.image(identifier).findtext("TEMPLATE/ERROR") or "")
        one("one.image.delete", identifier)
        assert len(simulator.stray_files()) == 1


def test_an_image_is_locked_while_it_is_copied_and_can_only_be_removed_by_force(simulator, one, safe):
    simulator.faults.copying = Copying(held=True)
    identifier = one("one.image.allocate", described(safe / "disk.raw"), 1)
    assert one.image(identifier).findtext("STATE") == "4"
    for method, parameters in (("one.image.enable", (False,)), ("one.image.delete", (False,))):
        with pytest.raises(RefusedError) as caught:
            one(method, identifier, *parameters)
        assert caught.value.code == Code.INTERNAL
    one("one.image.delete", identifier, True)
    with pytest.raises(RefusedError, match=r"Error getting image \[0\]"):
        one("one.image.info", identifier)
    simulator.faults.clear()
    until = time.monotonic() + WAIT_SECONDS
    while not simulator.stray_files():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_was_locked_when_the_server_stopped_stays_so_for_ever(simulator, one, safe):
    simulator.faults.copying = Copying(held=True)
    identifier = one("one.image.allocate", described(safe / "disk.raw"), 1)
    simulator.crash()
    simulator.faults.clear()
    until = time.monotonic() + WAIT_SECONDS
    while simulator.image(identifier).written is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert simulator.image(identifier).state is State.LOCKED
    one("one.image.delete", identifier, True)


def test_an_image_in_use_can_be_neither_removed_nor_disabled_and_can_when_its_machine_ended(simulator, one, safe):
    identifier = one("one.image.allocate", described(safe / "disk.raw"), 1)
    reach(simulator, identifier, State.READY)
    template = one(
        "one.template.allocate",
        f"<T><NAME>t</NAME><CPU>1</CPU><MEMORY>64</MEMORY><DISK><IMAGE_ID>{identifier}</IMAGE_ID></DISK></T>",
    )
    machine = one("one.template.instantiate", template, "vm", False, "", False)
    assert one.image(identifier).findtext("VMS/ID") == str(machine)
    with pytest.raises(RefusedError) as caught:
        one("one.image.delete", identifier)
    assert caught.value.code == Code.ACTION
    one("one.template.delete", template)
    one("one.vm.action", "terminate-hard", machine)
    one("one.image.enable", identifier, False)
    assert simulator.image(identifier).state is State.DISABLED
    one("one.image.delete", identifier)


def test_no_machine_starts_from_a_disabled_image(simulator, one, safe):
    identifier = one("one.image.allocate", described(safe / "disk.raw"), 1)
    reach(simulator, identifier, State.READY)
    template = one("one.template.allocate", f"<T><NAME>t</NAME><DISK><IMAGE_ID>{identifier}</IMAGE_ID></DISK></T>")
    one("one.image.enable", identifier, False)
    with pytest.raises(RefusedError, match="Cannot acquire image 0, it is in state: DISABLED") as caught:
        one("one.template.instantiate", template, "vm", False, "", False)
    assert caught.value.code == Code.ALLOCATE


def test_a_rename_to_a_name_that_is_taken_is_refused_and_one_to_its_own_is_not(one, safe):
    first = one("one.image.allocate", described(safe / "disk.raw", "a"), 1)
    one("one.image.allocate", described(safe / "disk.raw", "b"), 1)
    with pytest.raises(RefusedError, match="collides with image 1") as caught:
        one("one.image.rename", first, "b")
    assert caught.value.code == Code.ACTION
    assert one("one.image.rename", first, "a") == first


@pytest.mark.parametrize(
    ("datastore", "attributes", "words", "code"),
    [
        (99, {}, "Error getting datastore [99].", Code.NO_EXISTS),
        (0, {}, "New images can only be allocated in a files or image datastore.", Code.ALLOCATE),
        (1, {"TYPE": "CASSETTE"}, "Unknown type", Code.ALLOCATE),
        (2, {}, "Only IMAGES of type KERNEL", Code.ALLOCATE),
    ],
)
def test_what_does_not_fit_a_datastore_is_refused(one, safe, datastore, attributes, words, code):  # noqa: PLR0917 - fixtures
    with pytest.raises(RefusedError) as caught:
        one("one.image.allocate", described(safe / "disk.raw", **attributes), datastore)
    assert words in str(caught.value)
    assert caught.value.code == code


def test_an_image_larger_than_what_is_free_is_refused(simulator, one, safe):
    simulator.world.datastores[1].capacity = (10, 1, 9)
    with pytest.raises(RefusedError, match="Not enough space in datastore") as caught:
        one("one.image.allocate", described(safe / "disk.raw"), 1)
    assert caught.value.code == Code.ACTION
    # An administrator may have it not compared; nobody else.
    assert one("one.image.allocate", described(safe / "disk.raw"), 1, True) == 0


# -- users --------------------------------------------------------------------------------------------


def test_a_user_may_do_with_others_images_what_their_permissions_say(simulator, one, safe):
    user = simulator.add_user("ann", "pw")
    ann = Client(simulator, "ann:pw")
    identifier = one("one.image.allocate", described(safe / "disk.raw"), 1)
    reach(simulator, identifier, State.READY)
    with pytest.raises(
        RefusedError, match=f"User \\[{user.identifier}\\] : Not authorized to perform USE IMAGE"
    ) as caught:
        ann("one.image.info", identifier)
    assert caught.value.code == Code.AUTHORISATION
    one("one.image.chmod", identifier, -1, -1, -1, -1, -1, -1, 1, 0, 0)
    assert ann.image(identifier).findtext("NAME") == "a"
    with pytest.raises(RefusedError, match="MANAGE IMAGE"):
        ann("one.image.rename", identifier, "mine")
    assert ET.fromstring(ann("one.imagepool.info", -2, -1, -1)).findtext("IMAGE/ID") == str(identifier)  # noqa: S314
    assert ET.fromstring(ann("one.imagepool.info", -3, -1, -1)).find("IMAGE") is None  # noqa: S314
    own = ann("one.image.allocate", described(safe / "disk.raw"), 1)
    assert own != identifier


def test_a_quota_and_a_missing_right_to_create_are_refused(simulator, safe):
    simulator.add_user("ann", "pw").image_quota = {1: 1}
    simulator.add_user("bob", "pw", may_create=False)
    ann = Client(simulator, "ann:pw")
    ann("one.image.allocate", described(safe / "disk.raw"), 1)
    with pytest.raises(RefusedError, match="limit of 1 reached for IMAGES quota in DATASTORE with ID: 1") as caught:
        ann("one.image.allocate", described(safe / "disk.raw", "b"), 1)
    assert caught.value.code == Code.AUTHORISATION
    with pytest.raises(RefusedError, match="CREATE IMAGE"):
        Client(simulator, "bob:pw")("one.image.allocate", described(safe / "disk.raw"), 1)


def test_pools_come_in_pages_the_newest_first(one, safe):
    for number in range(5):
        one("one.image.allocate", described(safe / "disk.raw", f"image {number}"), 1)

    def page(start: int, end: int) -> list[str | None]:
        pool = ET.fromstring(one("one.imagepool.info", -2, start, end, -1))  # noqa: S314 - the simulator's own
        return [each.findtext("ID") for each in pool.iterfind("IMAGE")]

    assert page(-1, -1) == ["4", "3", "2", "1", "0"]
    assert page(0, -2) == ["4", "3"]
    assert page(2, -2) == ["2", "1"]
    assert page(4, -2) == ["0"]
    assert page(1, 3) == ["3", "2", "1"]


# -- by path and by URL --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["path", "http"])
def test_what_a_transport_offers_is_taken_in_whole(simulator, one, safe, tmp_path, how):
    transport = PathTransport(safe, str(safe)) if how == "path" else HttpTransport("127.0.0.1", 0)
    with transport.offer(converted_bytes(tmp_path / "store"), SILENT) as offered:
        text = described(offered.path_or_url, MD5=offered.checksums["md5"], SHA1=offered.checksums["sha1"])
        identifier = one("one.image.allocate", text, 1)
        assert reach(simulator, identifier, State.READY, State.ERROR) is State.READY
    assert stored(simulator, identifier) == CONTENT


@pytest.fixture
def web() -> Iterator[LoopbackServer]:
    with LoopbackServer() as running:
        yield running


def test_a_download_that_breaks_once_is_put_together_wrongly_and_only_a_checksum_tells(simulator, one, web):
    def broken_once() -> str:
        # Looks for the size, the HEAD, one look for the type, then the download itself.
        whole = serve(RAW)
        return web.set("disk.raw", in_turn(*[whole] * LOOKS, cut(RAW, 1_000_000), whole))

    identifier = one("one.image.allocate", described(broken_once()), 1)
    assert reach(simulator, identifier, State.READY, State.ERROR) is State.READY
    assert len(stored(simulator, identifier)) > len(RAW)

    digest = hashlib.md5(RAW, usedforsecurity=False).hexdigest()
    identifier = one("one.image.allocate", described(broken_once(), "b", MD5=digest), 1)
    assert reach(simulator, identifier, State.READY, State.ERROR) is State.ERROR


def test_a_download_that_always_breaks_ends_in_an_error_that_says_so(simulator, one, web):
    whole = serve(RAW)
    url = web.set("disk.raw", in_turn(*[whole] * LOOKS, *[cut(RAW, 1000)] * 4))
    identifier = one("one.image.allocate", described(url), 1)
    assert reach(simulator, identifier, State.READY, State.ERROR) is State.ERROR
    assert "curl: (18)" in (one.image(identifier).findtext("TEMPLATE/ERROR") or "")


@pytest.mark.parametrize(("content", "methods"), [(CONTENT, ["GET"] * 4), (RAW, ["GET"] * 6 + ["HEAD"] + ["GET"] * 2)])
def test_a_url_is_asked_as_often_as_a_real_one_asks(simulator, one, web, content, methods):
    identifier = one("one.image.allocate", described(web.set("disk", serve(content))), 1)
    reach(simulator, identifier, State.READY)
    assert [request.method for request in web.requests] == methods
    assert not any("Range" in request.headers for request in web.requests)


def test_the_size_of_a_raw_file_is_what_a_head_says_whatever_its_status(simulator, one, web):
    url = web.set("disk", in_turn(*[serve(RAW)] * 6, status(405, b"no HEAD here"), serve(RAW)))
    identifier = one("one.image.allocate", described(url), 1)
    reach(simulator, identifier, State.READY)
    assert one.image(identifier).findtext("SIZE") == "1"


@pytest.mark.parametrize("number", [404, 500])
def test_a_url_that_gives_nothing_is_refused_as_if_it_were_forbidden(one, web, number):
    url = web.set("disk.raw", status(number, b"no"))
    with pytest.raises(RefusedError, match="Permission denied") as caught:
        one("one.image.allocate", described(url), 1)
    assert caught.value.code == Code.INTERNAL


def test_a_raw_file_at_a_url_without_a_length_is_refused(one, web):
    url = web.set("disk.raw", without_length(RAW))
    with pytest.raises(RefusedError, match="Unsupported remote image format"):
        one("one.image.allocate", described(url), 1)


# -- faults --------------------------------------------------------------------------------------------


def test_a_fault_counts_the_calls_that_go_well_before_and_those_that_fail(simulator, one):
    simulator.faults.add(Fault(method="one.system.version", act=Act.REFUSE, skip=1, times=2, code=0x800, text="no"))
    outcomes: list[str] = []
    for _ in range(5):
        try:
            outcomes.append(one("one.system.version"))
        except RefusedError as problem:
            outcomes.append(f"{problem.code:#x}")
    assert outcomes == ["7.0.1", "0x800", "0x800", "7.0.1", "7.0.1"]


def test_a_fault_after_the_call_leaves_it_done_and_one_before_does_not(simulator, safe):
    allocate = "one.image.allocate"
    simulator.faults.add(
        Fault(method=allocate, act=Act.CUT, when=When.AFTER), Fault(method=allocate, act=Act.CUT, skip=1)
    )
    for name in ("after", "before"):
        with pytest.raises((OSError, http.client.HTTPException)):
            asked(simulator, allocate, described(safe / "disk.raw", name), 1)
    assert [image.name for image in simulator.images()] == ["after"]


def test_answers_go_wrong_in_each_way_that_can_be_asked_for(simulator, one, safe):
    for number in range(4):
        one("one.image.allocate", described(safe / "disk.raw", f"image {number}"), 1)
    pool = "one.imagepool.info"
    simulator.faults.add(
        Fault(method=pool, act=Act.STATUS, code=503),
        Fault(method=pool, act=Act.CUT_ANSWER, skip=1),
        Fault(method=pool, act=Act.HALF, skip=2),
        Fault(method=pool, act=Act.BOMB, skip=3),
        Fault(method=pool, act=Act.OUTSIDE, skip=4),
        Fault(method=pool, act=Act.GARBAGE, skip=5),
        Fault(method=pool, act=Act.WRONG_SHAPE, skip=6),
        Fault(method=pool, act=Act.HUGE, skip=7),
        Fault(method=pool, act=Act.STALL, skip=8, seconds=0.01),
        Fault(method=pool, act=Act.DELAY, skip=9, seconds=0.01),
    )
    with pytest.raises(urllib.error.HTTPError, match="503"):
        asked(simulator, pool, -2, -1, -1)
    with pytest.raises(http.client.IncompleteRead):
        asked(simulator, pool, -2, -1, -1)
    assert asked(simulator, pool, -2, -1, -1).count(b"&lt;IMAGE&gt;") == 2
    assert b"<!ENTITY l9" in asked(simulator, pool, -2, -1, -1)
    assert b"file:///etc/passwd" in asked(simulator, pool, -2, -1, -1)
    assert asked(simulator, pool, -2, -1, -1).startswith(b"\x00")
    assert b"many" in asked(simulator, pool, -2, -1, -1)
    assert len(asked(simulator, pool, -2, -1, -1)) > ENDLESS_BYTES
    with pytest.raises((OSError, http.client.HTTPException)):
        asked(simulator, pool, -2, -1, -1)
    assert asked(simulator, pool, -2, -1, -1).count(b"&lt;IMAGE&gt;") == 4


def test_copies_go_wrong_in_each_way_that_can_be_asked_for(simulator, one, safe):
    simulator.faults.copying = Copying(error="the disk is on fire")
    broken = one("one.image.allocate", described(safe / "disk.raw", "broken"), 1)
    assert reach(simulator, broken, State.READY, State.ERROR) is State.ERROR
    assert "the disk is on fire" in (one.image(broken).findtext("TEMPLATE/ERROR") or "")
    simulator.faults.copying = Copying(flipped=True)
    other = one("one.image.allocate", described(safe / "disk.raw", "other"), 1)
    assert reach(simulator, other, State.READY, State.ERROR) is State.READY
    assert stored(simulator, other) != RAW
    simulator.faults.copying = Copying(deleting_seconds=0.2)
    one("one.image.delete", other)
    assert one.image(other).findtext("STATE") == "7"
    until = time.monotonic() + WAIT_SECONDS
    while len(simulator.images()) > 1:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("method", "parameters", "words"),
    [
        ("one.image.info", ("x",), "-501: 'Parameter that is supposed to be integer is not"),
        ("one.image.info", (), "-501: 'Not enough parameters"),
        ("one.foo.bar", (), "-506: \"Method 'one.foo.bar' not defined"),
    ],
)
def test_what_is_no_call_is_a_fault(one, method, parameters, words):
    with pytest.raises(xmlrpc.client.Fault) as caught:
        one(method, *parameters)
    assert words in str(caught.value)


def test_pyone_reads_what_it_answers(simulator, safe):
    import pyone

    server = pyone.OneServer(simulator.endpoint, session=simulator.session)
    identifier = server.image.allocate(described(safe / "disk.raw", A="1"), 1)
    reach(simulator, identifier, State.READY)
    assert server.image.info(identifier).STATE == pyone.IMAGE_STATES.READY
    assert dict(server.imagepool.info(-2, -1, -1, -1).IMAGE[0].TEMPLATE)["A"] == "1"
    template = server.template.allocate(f"<T><NAME>t</NAME><DISK><IMAGE_ID>{identifier}</IMAGE_ID></DISK></T>")
    machine = server.template.instantiate(template, "vm", False, "", False)
    assert server.vm.info(machine).STATE == pyone.VM_STATE.ACTIVE
    assert [each.ID for each in server.vmpool.info(-2, -1, -1, -1).VM] == [machine]
    assert [each.NAME for each in server.datastorepool.info().DATASTORE] == ["files", "default", "system"]
    assert [each.NAME for each in server.grouppool.info().GROUP] == ["users", "oneadmin"]
    assert server.user.info(-1).NAME == "oneadmin"
