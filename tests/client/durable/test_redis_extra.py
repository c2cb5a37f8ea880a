"""Without the extra redis everything but a RedisStore works, and that one says what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent.parent

PROGRAM = """
import sys
import layr8_actors.client.durable as durable
from layr8_actors.errors import InvalidOption
assert "coredis" not in sys.modules
sys.modules["coredis"] = None  # as if it were not installed
try:
    durable.RedisStore("redis://host")
except InvalidOption as error:
    print(error)
"""


def test_coredis_is_imported_where_a_redis_store_is_made_and_its_absence_is_told():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=50, check=True
    )
    assert 'pip install "layr8-actors[redis]"' in done.stdout
