"""JUnit XML of a verification: a suite for every row, and for every back end that did not run."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bittrue.sim.files import write_whole

NAME = "junit.xml"


class JUnit:
    """What a verification in this folder found, for CI services; `write` leaves it there as `junit.xml`."""

    def __init__(self, folder: Path):
        self.folder, self.root = folder, ET.Element("testsuites")

    def skip(self, one: Mapping[str, str]) -> None:
        """The suite of a back end that did not run."""
        kind, name = one["backend"], one["simulator"]
        counts = {"tests": "1", "failures": "0", "skipped": "1"}
        suite = ET.SubElement(self.root, "testsuite", counts, name=f"{kind}.{name}")
        case = ET.SubElement(suite, "testcase", classname=kind, name=name, time="0.000")
        ET.SubElement(case, "skipped", message=one["reason"])

    def enter(self, kind: str, name: str, seconds: float, failures: Sequence[str], row: Mapping[str, Any]) -> None:
        """One suite a row: our verdict, a case for each of several results, and what cocotb wrote."""
        suite = ET.SubElement(self.root, "testsuite", name=f"{kind}.{name}")
        case = ET.SubElement(suite, "testcase", classname=kind, name=name, time=f"{seconds:.3f}")
        if failures:
            ET.SubElement(case, "failure", message="; ".join(failures))
        for result, wrong in row.get("results", {}).items():
            case = ET.SubElement(suite, "testcase", classname=f"{kind}.{name}", name=result)
            if wrong:
                ET.SubElement(case, "failure", message=f"{wrong} values of {result} differ")
        written = self.folder / name / "results.xml"
        if written.is_file():
            suite.extend(ET.parse(written).getroot().iter("testcase"))
        tests, failed = suite.findall("testcase"), len(suite.findall("testcase/failure"))
        suite.set("tests", str(len(tests)))
        suite.set("failures", str(failed))

    def write(self) -> None:
        ET.indent(self.root)
        write_whole(self.folder / NAME, ET.tostring(self.root, encoding="utf-8", xml_declaration=True))
