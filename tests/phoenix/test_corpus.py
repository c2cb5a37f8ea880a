"""What the fuzzers of ``fuzz/`` have found, and the seeds they began with; every file is replayed."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

CORPUS = Path(__file__).parent / "corpus"
TARGETS = sorted(folder.name for folder in CORPUS.iterdir())


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    modules = {path.stem for path in (CORPUS.parents[2] / "fuzz").glob("*.py")} - {"__init__", "run"}
    assert set(TARGETS) == modules


@pytest.mark.parametrize("target", TARGETS)
async def test_what_was_found_once_breaks_nothing(target: str) -> None:
    check = importlib.import_module(f"fuzz.{target}").check
    files = sorted((CORPUS / target).iterdir())
    assert files
    for path in files:
        try:
            outcome = check(path.read_bytes())
            if inspect.isawaitable(outcome):
                await outcome
        except Exception as error:
            error.add_note(f"with the input {path.relative_to(CORPUS)}")
            raise
