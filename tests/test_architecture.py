"""The house rules that a machine can check: who may import whom, sizes, names, re-exports, exception handlers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "layr8_actors"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_import_contracts_of_pyproject_hold():
    lint_imports = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run(
        [lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


def test_every_layer_of_the_house_exists():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}

    assert {"phoenix", "otp", "transport", "channel", "telemetry", "testing", "cli"} <= folders


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_opens_with_a_docstring_and_is_small_or_says_why_not(path: Path):
    docstring = ast.get_docstring(parsed(path))
    lines = len(path.read_text(encoding="utf-8").splitlines())

    assert docstring, f"{name_of(path)} has no docstring"
    if lines > MAX_LINES:
        assert f"{MAX_LINES} lines" in docstring, (
            f"{name_of(path)} has {lines} lines: split it, or let its docstring say why it needs over {MAX_LINES} lines"
        )


def test_no_module_has_a_name_that_says_nothing():
    meaningless = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}
    paths = [*MODULES, *(ROOT / "tests").rglob("*.py")]

    assert [name_of(path) for path in paths if {path.stem, path.parent.name} & meaningless] == []


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "__init__.py"], ids=name_of)
def test_package_re_exports_each_name_as_itself(path: Path):
    implicit = [
        f"{node.module}.{alias.name}"
        for node in parsed(path).body
        if isinstance(node, ast.ImportFrom) and node.level > 0
        for alias in node.names
        if not alias.name.startswith("_") and alias.asname != alias.name
    ]

    assert implicit == [], f"write `X as X`, so that type checkers see the re-export in {name_of(path)}"


def broad(kind: ast.expr | None) -> bool:
    """Whether this handler catches Cancelled too."""
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(one is None or "BaseException" in ast.unparse(one) or "Cancelled" in ast.unparse(one) for one in kinds)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_handler_swallows_a_cancellation_or_every_error(path: Path):
    faults: list[str] = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ExceptHandler):
            if broad(node.type) and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
                faults.append(f"line {node.lineno}: catches cancellation and does not raise it again")
            silent = all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
            if silent and node.type is not None and ast.unparse(node.type) == "Exception":
                faults.append(f"line {node.lineno}: drops every error in silence")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"suppress", "contextlib.suppress"}:
            caught = {ast.unparse(argument) for argument in node.args}
            if caught & {"BaseException", "Exception", "trio.Cancelled"}:
                faults.append(f"line {node.lineno}: suppresses {sorted(caught)}")

    assert faults == [], name_of(path)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_source_holds_no_note_of_unfinished_work(path: Path):
    assert re.findall(r"\b(?:TODO|FIXME|XXX)\b", path.read_text(encoding="utf-8")) == []
