"""The bill of materials of an image: what cyclonedx-py found of its environment, and the packages of its base.

    python sbom.py ENVIRONMENT.json PACKAGES > sbom.cdx.json

PACKAGES: a Debian package a line: what dpkg-query shows as ${binary:Package}, ${Version}, ${Architecture} and
${source:Package}, with tabs between.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL


def system() -> Component:
    """The distribution of the base."""
    release = platform.freedesktop_os_release()
    return Component(type=ComponentType.OPERATING_SYSTEM, name=release["ID"], version=release["VERSION_ID"])


def interpreter() -> Component:
    """The Python that runs the service: of the base, which need not have it from a package."""
    version = platform.python_version()
    purl = PackageURL("generic", None, "python", version)
    return Component(type=ComponentType.PLATFORM, name="python", version=version, purl=purl, bom_ref=str(purl))


def package(line: str, distribution: Component) -> Component:
    """A package of the base."""
    name, version, architecture, source = line.split("\t")
    name = name.partition(":")[0]
    qualifiers = {"arch": architecture, "distro": f"{distribution.name}-{distribution.version}"}
    if source != name:
        qualifiers["upstream"] = source
    purl = PackageURL("deb", distribution.name, name, version, qualifiers)
    return Component(type=ComponentType.LIBRARY, name=name, version=version, purl=purl, bom_ref=str(purl))


def main(environment: Path, packages: Path) -> None:
    bom = Bom.from_json(json.loads(environment.read_text("utf-8")))
    distribution = system()
    of_base = [package(line, distribution) for line in packages.read_text("utf-8").splitlines()]
    bom.components.update([distribution, interpreter(), *of_base])
    print(JsonV1Dot6(bom).output_as_string(indent=1))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
