"""A JUnit XML report, as CI systems read it.

The form is the schema of Jenkins' xUnit plugin (https://github.com/jenkinsci/xunit-plugin,
`junit-10.xsd`), with no attribute beyond it: what the CI systems have in common.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final
from xml.etree import ElementTree as ET

from gateway.testing.report import details, headline
from gateway.testing.rules import Setting
from gateway.testing.run import Result

__all__ = ["junit_xml"]

_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write, section 2.2."""


def junit_xml(results: Mapping[str, Sequence[Result]], setting: Setting) -> bytes:
    """Give the report of the results, by the name of their file, as UTF-8."""
    everything = [result for of_file in results.values() for result in of_file]
    root = ET.Element("testsuites", {"name": "gateway test", **_counts(everything)})
    for file, of_file in results.items():
        counts = {**_counts(of_file), "skipped": "0"}
        suite = ET.SubElement(root, "testsuite", {"name": _text(file), **counts})
        for result in of_file:
            _case(suite, file, result, setting)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _case(suite: ET.Element, file: str, result: Result, setting: Setting) -> None:
    name, classname = _text(result.test.name), _text(file)
    attributes = {"name": name, "classname": classname, "time": _time(result.seconds)}
    case = ET.SubElement(suite, "testcase", attributes)
    if not result.passed:
        message = "; ".join(headline(failure) for failure in result.failures)
        failure = ET.SubElement(case, "failure", {"message": _text(message), "type": "failure"})
        lines = [f"{file}:{result.test.line}: {result.test.name}", *details(result, setting)]
        failure.text = _text("\n".join(lines))


def _counts(results: Sequence[Result]) -> dict[str, str]:
    return {
        "tests": str(len(results)),
        "failures": str(sum(not result.passed for result in results)),
        "errors": "0",
        "time": _time(sum(result.seconds for result in results)),
    }


def _time(seconds: float) -> str:
    return f"{seconds:.3f}"


def _text(text: str) -> str:
    return _NOT_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
