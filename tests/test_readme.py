"""The README's first program is what a new user runs, so it runs here, exactly as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def first_program() -> str:
    found = re.search(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found.group(1)


def test_the_first_program_is_about_15_lines() -> None:
    lines = [line for line in first_program().splitlines() if line.strip()]
    assert 10 <= len(lines) <= 17, lines


@pytest.mark.real_clock
def test_the_first_program_prints_what_the_readme_says(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(first_program(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=README.parent,
        env={**os.environ, "PYTHONPATH": str(README.parent)},  # a checkout need not be installed
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout.splitlines()
    assert sorted(printed) == ["ok", "{'content': 'hello'}"]  # two tasks print, woken by one read
    said = re.search(r"^It prints `(.*?)` and `(.*?)`", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert said is not None
    assert sorted(said.groups()) == sorted(printed)
