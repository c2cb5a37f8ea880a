"""What a new machine gets: one version, every install pinned, a wheel with types, and no file tied to one machine."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import layr8_actors

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def lines_of(name: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def pins() -> dict[str, str]:
    return {
        canonicalize_name(name): version
        for name, _, version in (line.partition("==") for line in lines_of("constraints.txt"))
    }


def group(name: str) -> list[str]:
    found: list[str] = []
    for entry in PYPROJECT["dependency-groups"][name]:
        found += group(entry["include-group"]) if isinstance(entry, dict) else [entry]
    return found


def declared() -> list[Requirement]:
    project = PYPROJECT["project"]
    texts = [*project["dependencies"], *PYPROJECT["build-system"]["requires"], *group("dev")]
    for extra in project["optional-dependencies"].values():
        texts += extra
    return [Requirement(text) for text in texts]


def test_package_and_pyproject_name_the_same_version():
    assert layr8_actors.__version__ == PYPROJECT["project"]["version"]


def test_changelog_has_a_place_for_what_is_unreleased():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert "\n## [Unreleased]\n" in changelog


def test_constraints_are_exact_versions_by_name_only():
    wrong = [
        line for line in lines_of("constraints.txt") if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)
    ]

    assert wrong == []


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_declared_requirement_is_pinned_at_a_version_it_allows(requirement: Requirement):
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def test_everything_that_an_install_pulls_in_is_pinned():
    pinned = pins()
    seen: set[tuple[str, str]] = set()
    queue = [(requirement.name, extra) for requirement in declared() for extra in ("", *requirement.extras)]
    missing: set[str] = set()
    while queue:
        name, extra = queue.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        if canonicalize_name(name) not in pinned:
            missing.add(name)
            continue
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                queue += [(requirement.name, each) for each in ("", *requirement.extras)]

    assert missing == set()
    assert len(seen) > len(declared())


def test_requirement_files_name_what_pyproject_names():
    def names(texts: list[str]) -> set[tuple[str, frozenset[str]]]:
        return {(requirement.name, frozenset(requirement.extras)) for requirement in map(Requirement, texts)}

    assert names(lines_of("requirements/dev.txt")) == names(group("dev"))
    assert names(lines_of("requirements/build.txt")) == names(PYPROJECT["build-system"]["requires"])


def test_wheel_holds_the_typed_package_its_licence_and_the_command(tmp_path: Path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=50)
    (wheel,) = tmp_path.glob("*.whl")

    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
        commands = archive.read(entry_points).decode()

    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "layr8_actors").rglob("*.py")}
    assert sources <= names
    assert "layr8_actors/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "layr8-actors = layr8_actors.cli:main" in commands
    assert {name.partition("/")[0] for name in names - sources} == {
        "layr8_actors",
        f"layr8_actors-{layr8_actors.__version__}.dist-info",
    }


# Put together from parts, for this file is scanned too.
TIED_TO_ONE_PLACE = re.compile(
    "|".join(
        [
            re.escape("pypi" + ".org"),
            re.escape("files." + "pythonhosted"),
            re.escape("registry." + "npmjs"),
            r"(?<![\w.])" + "/wor" + "k/",
            r"(?<![\w.])" + "/roo" + "t/",
            r"\.\./" + "shared",
            "--" + r"(?:extra-)?index-url",
            "--" + "find-links",
        ]
    )
)


def test_no_committed_file_names_a_package_index_or_a_path_of_one_machine():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, timeout=50, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout (an unpacked sdist): what is committed cannot be listed")
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    assert Path(__file__) in paths

    found: list[str] = []
    for path in paths:
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            found += [f"{path.relative_to(ROOT)}: {match}" for match in TIED_TO_ONE_PLACE.findall(text)]
    assert found == []
