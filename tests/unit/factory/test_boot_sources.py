# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import io
import json
import shlex

import pytest

from coppice.factory.boot_channel import handed_script
from coppice.factory.boot_metadata import serve
from coppice.factory.boot_sources import (
    Handed,
    Source,
    config_drive_files,
    ec2_pages,
    no_cloud_files,
    open_nebula_files,
    open_stack_pages,
    served_sources,
)

pytestmark = pytest.mark.unit

HANDED = Handed(instance="boot-test-1", public_key="ssh-ed25519 AAAA boot-test\n", script="#!/bin/sh\necho 'it''s'\n")
KEY = "ssh-ed25519 AAAA boot-test"


def test_only_what_can_be_served_here_is_and_in_the_appliances_order():
    assert served_sources(("None", "Ec2", "Azure", "NoCloud")) == (Source.EC2, Source.NO_CLOUD)
    assert served_sources(("None",)) == ()


def test_each_disk_hands_over_the_same():
    told = no_cloud_files(HANDED)
    assert json.loads(told["meta-data"])["instance-id"] == "boot-test-1"
    assert json.loads(told["meta-data"])["public-keys"] == [KEY]
    assert told["user-data"] == HANDED.script.encode()
    drive = config_drive_files(HANDED)
    assert json.loads(drive["openstack/latest/meta_data.json"])["public_keys"] == {"boot-test": KEY}
    assert drive["openstack/latest/user_data"] == HANDED.script.encode()


def test_opennebulas_disk_is_a_shells_variables_with_the_network_in_them():
    lines = open_nebula_files(HANDED)["context.sh"].decode().splitlines()
    said = dict(shlex.split(line)[0].split("=", 1) for line in lines if not line.startswith("#"))
    assert base64.b64decode(said["USER_DATA"]).decode() == HANDED.script
    assert said["SSH_PUBLIC_KEY"] == KEY
    assert said["ETH0_IP"] == "10.0.2.15"


@pytest.mark.parametrize("version", ["2009-04-04", "latest"])
def test_amazons_pages_are_a_tree_of_lists(version):
    pages = ec2_pages(HANDED)

    def walk(path):
        for name in pages[path.rstrip("/")].split("\n"):
            if name.endswith("/") and not path.endswith("public-keys/"):
                yield from walk(path + name)
            else:
                yield path + name

    found = list(walk(f"/{version}/meta-data/"))
    assert f"/{version}/meta-data/instance-id" in found
    assert f"/{version}/meta-data/public-keys/0=boot-test" in found
    assert pages[f"/{version}/meta-data/public-keys/0/openssh-key"] == KEY
    assert pages[f"/{version}/user-data"] == HANDED.script
    assert all(each in pages for each in found if "=" not in each)
    # While what a machine is cannot be had, cloud-init asks for it again and again, at each stage.
    assert list(walk(f"/{version}/dynamic/")) == [f"/{version}/dynamic/instance-identity/document"]
    assert json.loads(pages[f"/{version}/dynamic/instance-identity/document"])["instanceId"] == "boot-test-1"


def test_openstacks_pages_are_there_besides():
    pages = open_stack_pages(HANDED)
    assert "latest" in pages["/openstack"].split("\n")
    assert json.loads(pages["/openstack/latest/meta_data.json"])["public_keys"] == {"boot-test": KEY}
    assert pages["/openstack/latest/user_data"] == HANDED.script
    assert pages["/latest/meta-data/instance-id"] == "boot-test-1"


def asked(*requests):
    answers = io.BytesIO()
    serve(ec2_pages(HANDED), io.BytesIO(b"".join(requests)), answers)
    return answers.getvalue()


def test_the_service_answers_one_request_after_the_other():
    said = asked(
        b"PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 5\r\n\r\n",
        b"GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /latest/meta-data/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    assert said.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert b"\r\n\r\nboot-test-1HTTP/1.1" in said
    assert b"404 Not Found" in said
    assert b"405 Method Not Allowed" in said


@pytest.mark.parametrize(
    "request_bytes",
    [b"", b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000, b"\xff" * 100_000],
)
def test_what_is_no_request_is_not_answered(request_bytes):
    assert asked(request_bytes) == b""


def test_an_agent_is_handed_over_only_where_nobody_can_log_in():
    alone, with_agent = (handed_script("boot-test-1", is_reached_by_port=each) for each in (False, True))
    # Whichever the source: OpenStack tells another name than ours, OpenNebula always the same.
    assert alone.endswith("echo boot-test-1 > /run/coppice-boot-test\n")
    assert "virtio-ports" not in alone
    assert with_agent.startswith(alone)
    assert "/dev/virtio-ports/org.coppice.boot-test" in with_agent
