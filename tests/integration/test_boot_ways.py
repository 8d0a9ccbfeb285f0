# SPDX-License-Identifier: Apache-2.0
"""The ways to a machine under test, each against the real thing that speaks it, without a machine."""

from __future__ import annotations

import contextlib
import http.server
import ipaddress
import os
import re
import secrets
import socket
import ssl
import struct
import subprocess
import threading
import time
import tty
from contextlib import contextmanager
from functools import partial

import pytest

from coppice.definition.model import Page
from coppice.errors import ToolFailedError, ToolTimeoutError
from coppice.factory.boot_channel import PortChannel, handed_script
from coppice.factory.machine import GUEST_MAC
from coppice.factory.ports import free_port
from coppice.factory.probe_packets import Arp, Echo, Segment, Way, arp_frame, echo_frame, read_frame
from coppice.factory.probe_page import enter_web_console, fetch_page
from coppice.factory.probe_vnc import see_desktop
from coppice.factory.probe_wire import Answer, Question, Wire

pytestmark = pytest.mark.integration

RIGHT, WRONG = "secret", "wrong"


@pytest.fixture
def agent(tmp_path):
    """The script that a machine gets, run by this machine's own shell, with a terminal's end as its port."""
    script = handed_script("boot-test-1", is_reached_by_port=True)
    (body,) = re.findall(r"<< 'END-OF-AGENT'\n(.*?)END-OF-AGENT", script, re.DOTALL)
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    body = body.replace("/dev/virtio-ports/org.coppice.boot-test", os.ttyname(theirs)).replace("/root/", f"{tmp_path}/")
    assert str(tmp_path) in body
    near, far = socket.socketpair()

    def carry(read, write):
        try:
            while data := read():
                write(data)
        except OSError:
            return

    def write_all(data):
        while data:
            data = data[os.write(ours, data[:1024]) :]

    for read, write in ((partial(far.recv, 65536), write_all), (partial(os.read, ours, 65536), far.sendall)):
        threading.Thread(target=carry, args=(read, write), daemon=True).start()
    child = subprocess.Popen(["/bin/sh", "-c", body], start_new_session=True)
    yield PortChannel(near)
    child.kill()
    child.wait()
    near.close()
    far.close()
    os.close(theirs)


def test_the_agent_runs_what_it_is_told_and_says_what_became_of_it(agent):
    assert agent.answers(20)
    assert agent.run_script("echo one; echo two >&2", 20).text() == "one\ntwo\n"
    assert agent.run_program(b"#!/usr/bin/env python3\nprint('\\u00fc' * 100)\n", 20).text() == "\u00fc" * 100 + "\n"
    with pytest.raises(ToolFailedError) as failed:
        agent.run_program(b"echo 'port 80 is closed'; exit 3", 20)
    assert failed.value.context["returncode"] == 3
    assert failed.value.details == "port 80 is closed\n"
    with pytest.raises(ToolTimeoutError):
        agent.run_script("echo before; sleep 60", 1)
    # What looks like the agent's own words is a program's, and comes back as such.
    assert agent.run_script("echo 'end 0'; echo 'begin 0 0'", 20).text() == "end 0\nbegin 0 0\n"
    assert len(agent.run_script("head -c 200000 /dev/zero | tr '\\0' x", 20).text()) == 200_000


def test_a_port_at_which_nobody_is_does_not_answer():
    near, far = socket.socketpair()
    channel = PortChannel(near)
    assert not channel.answers(0.05)
    far.close()
    assert not channel.answers(5)
    with pytest.raises((ToolFailedError, ToolTimeoutError)):
        channel.run_script("true", 1)
    near.close()


GUEST, NEAR = ipaddress.ip_address("10.0.2.15"), ipaddress.ip_address("10.0.2.77")


class Guest(threading.Thread):
    """A machine's end of the wire: it has an address, answers pings, and lets in to one port."""

    def __init__(self, end) -> None:
        super().__init__(daemon=True)
        self.end = end
        self.heard = []

    def say(self, frame):
        # The neighbour may have left already.
        with contextlib.suppress(BrokenPipeError):
            self.end.sendall(struct.pack("!I", len(frame)) + frame)

    def run(self):
        stream = self.end.makefile("rb")
        while len(head := stream.read(4)) == 4:
            frame = stream.read(struct.unpack("!I", head)[0])
            packet = read_frame(frame)
            self.heard.append(packet)
            back = Way(source_mac=GUEST_MAC, source=GUEST, target_mac=packet.source_mac, target=packet.source)
            if isinstance(packet, Arp) and packet.is_request:
                self.say(arp_frame(back, is_request=False))
            elif isinstance(packet, Echo) and packet.is_request:
                answer = bytearray(echo_frame(back, identifier=packet.identifier))
                answer[34] = 0
                self.say(bytes(answer))
            elif isinstance(packet, Segment) and packet.target_port in {22, 23}:
                flags = 0x12 if packet.target_port == 22 else 0x14
                said = struct.pack("!HHIIBBHHH", packet.target_port, packet.source_port, 0, 0, 80, flags, 0, 0, 0)
                shell = echo_frame(back, identifier=0)
                # Somebody else's refusal, as QEMU's router says it, comes first and is nobody's answer.
                liar = shell[:6] + b"\x52\x55\x0a\x00\x02\x02" + shell[12:23] + b"\x06" + shell[24:34]
                self.say(liar + said[:13] + b"\x14" + said[14:])
                self.say(shell[:23] + b"\x06" + shell[24:34] + said)


def test_a_neighbour_asks_and_only_the_guest_itself_answers():
    ours, theirs = socket.socketpair()
    guest = Guest(theirs)
    guest.start()
    wire = Wire(ours)
    assert wire.has_answered_arp(GUEST, source=NEAR)
    assert wire.pings(GUEST, source=NEAR)
    asked = [Question(NEAR, GUEST, "tcp", port) for port in (22, 23, 24)]
    answers = wire.ask(asked)
    assert [answers[each] for each in asked] == [Answer.OPEN, Answer.REFUSED, Answer.SILENT]
    tried = [packet.target_port for packet in guest.heard if isinstance(packet, Segment)]
    assert sorted(tried) == [22, 23, 24, 24, 24], "what stays silent is asked again"
    # The guest may look for the neighbour as well.
    way = Way(source_mac=GUEST_MAC, source=GUEST, target_mac="ff:ff:ff:ff:ff:ff", target=NEAR)
    guest.say(arp_frame(way, is_request=True))
    deadline = time.monotonic() + 10
    while not (found := [each for each in guest.heard if isinstance(each, Arp) and not each.is_request]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert found[0].source == NEAR
    # Nonsense ends nothing; a length that no frame has ends the wire.
    guest.say(b"\xff" * 60)
    assert wire.pings(GUEST, source=NEAR)
    theirs.sendall(b"\xff\xff\xff\xff")
    wire.close()
    theirs.close()


class Pages(http.server.BaseHTTPRequestHandler):
    """A web server with one page, and the login of a web console."""

    def do_GET(self):
        status, body = 404, b"nothing"
        if self.path == "/":
            status, body = 200, b"<h1>It works</h1>"
        elif self.path == "/cockpit/login":
            right = self.headers["Authorization"] == "Basic ZGViaWFuOnNlY3JldA=="
            status, body = (200, b'{"csrf-token": "x"}') if right else (401, b"")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def served(context=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def test_pages_are_held_to_status_and_content():
    page = Page(name="front", port=80, contains="It works")
    with served() as port:
        assert fetch_page(page, port, seconds=5) == ("200, 17 bytes", None)
        other = Page(name="front", port=80, contains="Welcome")
        assert fetch_page(other, port, seconds=0)[1] == "the page front at port 80 does not hold 'Welcome'"
        missing = Page(name="hub", port=80, path="/hub")
        assert fetch_page(missing, port, seconds=0)[1] == "the page hub at port 80 was answered with 404, not with 200"
        assert fetch_page(Page(name="hub", port=80, path="/hub", status=404), port, seconds=0)[1] is None
    assert "no web server answered" in (fetch_page(page, port, seconds=0)[1] or "")


def test_a_web_console_is_logged_in_to_whatever_its_certificate(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run(
        [*command, "-subj", "/CN=machine", "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with served(context) as port:
        assert enter_web_console(port, user="debian", password=RIGHT, seconds=5) == ("lets debian in", None)
        _, wrong = enter_web_console(port, user="debian", password=WRONG, seconds=0)
        assert wrong == "its web console does not let debian in by the password on its console: 401"
    assert enter_web_console(port, user="debian", password=RIGHT, seconds=0)[1] == "its web console does not answer"


@contextmanager
def desktop(tmp_path, *options):
    """A real desktop's X server, seen by VNC alone; what it shows is up to the options."""
    port, number, password = free_port(), 50 + secrets.randbelow(900), secrets.token_hex(4)
    file = tmp_path / "password"
    file.write_bytes(
        subprocess.run(["tigervncpasswd", "-f"], input=password.encode(), capture_output=True, check=True).stdout
    )
    file.chmod(0o600)
    words = ["Xtigervnc", f":{number}", "-rfbport", str(port), "-localhost", "-nolisten", "tcp", "-nolisten", "unix"]
    words += ["-geometry", "320x200", "-depth", "24", "-desktop", "machine", "-PasswordFile", str(file), *options]
    with (tmp_path / "log").open("wb") as log:
        child = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield port, password
    finally:
        child.terminate()
        child.wait()


def test_a_desktop_is_seen_by_its_password_and_by_no_other(tmp_path):
    with desktop(tmp_path, "-SecurityTypes", "TLSVnc,VncAuth", "-retro") as (port, password):
        picture, wrong = see_desktop(port, lambda: password, seconds=20)
        assert wrong is None
        assert picture is not None
        assert (picture.width, picture.height, len(picture.pixels)) == (320, 200, 320 * 200 * 4)
        assert picture.name == "machine"
        assert picture.colours() == 2, "the weave of a bare X server"
        _, wrong = see_desktop(port, lambda: "wrong", seconds=0)
        assert "it refuses the password on its console" in (wrong or "")
        assert see_desktop(port, lambda: None, seconds=0)[1] == "its console does not tell the password of its desktop"
    assert "not to be seen" in (see_desktop(port, lambda: password, seconds=0)[1] or "")


def test_a_desktop_that_shows_nothing_or_asks_for_nothing_is_none(tmp_path):
    with desktop(tmp_path, "-SecurityTypes", "VncAuth") as (port, password):
        assert "shows nothing" in (see_desktop(port, lambda: password, seconds=3)[1] or "")
    with desktop(tmp_path, "-SecurityTypes", "None") as (port, password):
        deadline = time.monotonic() + 20
        while "without a password" not in (see_desktop(port, lambda: password, seconds=0)[1] or ""):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize(
    "words",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"RFB 003.008\n\x00\x00\x00\x00\x08too many",
        b"RFB 003.008\n\x00\xff\xff\xff\xff",
        b"RFB 003.008\n\x01\x10",
        b"RFB 003.008\n\x01\x02" + bytes(16) + b"\x00\x00\x00\x00\xff\xff\xff\xff" + bytes(16) + b"\x00\x00\x00\x01x",
        b"RFB 003.008\n\x01\x02" + bytes(20) + b"\x00\x01\x00\x01" + bytes(16) + b"\xff\xff\xff\xff",
        b"RFB 003.008\n\x01\x02" + bytes(20) + b"\x00\x01\x00\x01" + bytes(20) + b"\x00\x00\x00\x01" + b"\xff" * 12,
    ],
)
def test_a_hostile_server_of_desktops_is_told_and_ends_nothing(words):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            # Who is asked in turn may hang up at any word.
            with connection, contextlib.suppress(OSError):
                connection.sendall(words)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=answer)
        thread.start()
        picture, wrong = see_desktop(listener.getsockname()[1], lambda: "secret", seconds=0)
        thread.join()
    assert picture is None
    assert "its desktop is not to be seen" in (wrong or "")
