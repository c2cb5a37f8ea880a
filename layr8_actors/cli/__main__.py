"""``python -m layr8_actors.cli`` does what ``layr8-actors`` does."""

from __future__ import annotations

import sys

from . import main

sys.exit(main())
