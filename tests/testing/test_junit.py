"""The report is what CI systems read: the rules of Jenkins' `junit-10.xsd`, held by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.testing.junit import junit_xml
from gateway.testing.load import RoutingTest
from gateway.testing.run import NoEvent, Result
from tests.testing.settings import setting
from tests.testing.test_run import BUS, CREATED, USERS, results

_NUMBER = re.compile(r"[0-9]+")
_TIME = re.compile(r"([0-9]{0,3},)*[0-9]{1,}(\.[0-9]{0,3})?")
ATTRIBUTES = {
    # Name, and whether it must be there.
    "testsuites": {
        "name": False,
        "time": False,
        "tests": False,
        "failures": False,
        "errors": False,
    },
    "testsuite": {
        "name": True,
        "tests": True,
        "failures": False,
        "errors": False,
        "time": False,
        "skipped": False,
    },
    "testcase": {"name": True, "classname": True, "time": False},
    "failure": {"message": False, "type": False},
}
INSIDE = {
    "testsuites": {"testsuite"},
    "testsuite": {"testcase"},
    "testcase": {"failure"},
    "failure": set[str](),
}


def assert_valid(document: bytes) -> ET.Element:
    """Hold a report to the schema."""
    root = ET.fromstring(document)  # noqa: S314 - our own, from just now
    assert root.tag == "testsuites"
    for element in root.iter():
        known = ATTRIBUTES[element.tag]
        assert element.attrib.keys() <= known.keys()
        assert {name for name, required in known.items() if required} <= element.attrib.keys()
        assert {child.tag for child in element} <= INSIDE[element.tag]
        for name in ("tests", "failures", "errors", "skipped"):
            assert _NUMBER.fullmatch(element.get(name, "0"))
        assert _TIME.fullmatch(element.get("time", "0.000"))
    for counted in (root, *root.iter("testsuite")):
        cases = list(counted.iter("testcase"))
        failed = [case for case in cases if case.find("failure") is not None]
        assert counted.get("tests") == str(len(cases))
        assert counted.get("failures") == str(len(failed))
    return root


def test_a_report_has_each_file_each_test_and_why_it_failed(tmp_path: Path) -> None:
    ran = results(tmp_path, f"{CREATED}, expect: [{USERS}]", f"{CREATED}, expect: [{BUS}, {USERS}]")
    document = junit_xml({"a.tests.yaml": ran, "b.tests.yaml": ran[1:]}, setting(tmp_path))
    root = assert_valid(document)
    assert root.attrib == {
        "name": "gateway test",
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "time": "1.500",
    }
    assert [suite.get("name") for suite in root] == ["a.tests.yaml", "b.tests.yaml"]
    first, second = root[0]
    assert (first.get("name"), first.get("classname")) == ("t0", "a.tests.yaml")
    assert first.get("time") == "0.500"
    (failure,) = first
    assert failure.get("message") == "published, and not expected"
    assert failure.text == (
        "a.tests.yaml:2: t0\n"
        "  published, and not expected\n"
        "    - {broker: bus, subject: clerk.user.created, key: user_1, routes: [users]}"
    )
    assert list(second) == []


HOSTILE = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    ["\x00", "]]>", "<failure/>", "&amp;", "\x1b[2J", "\ufffe", "\ud800", "\r\n\t", "\U0010ffff"]
)


@given(HOSTILE, HOSTILE, HOSTILE)
@settings(max_examples=200)
def test_a_report_is_well_formed_whatever_the_names(file: str, name: str, problem: str) -> None:
    test = RoutingTest(name, 1, "clerk", "msg_1", b"", (), (), True)
    made: Any = None  # what is not shown is asked only of records
    failed = Result(test, (NoEvent(problem),), 0.0004)
    document = junit_xml({file: [failed]}, made)
    (suite,) = assert_valid(document)
    (case,) = suite
    plain = "".join(
        one for one in name if one.isprintable() and one.isalnum() and ord(one) < 0xD800
    )
    assert all(one in (case.get("name") or "") for one in plain)
