"""No row of the peers' bugs is left out, and none is claimed twice by mistake."""

from __future__ import annotations

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent


def test_each_of_the_27_bugs_has_a_test_that_says_what_happens_here_instead() -> None:
    rows: dict[int, list[str]] = {}
    for path in sorted(FOLDER.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found = re.fullmatch(r"test_peer_bug_(\d\d)_(\w{20,})", node.name)
                assert found is not None or "peer_bug" not in node.name, node.name
                if found is not None:
                    rows.setdefault(int(found[1]), []).append(path.name)
    assert sorted(rows) == list(range(1, 28))
    assert [row for row, files in rows.items() if len(set(files)) > 1] == []
