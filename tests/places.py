"""Where the repository, its published results and the demo corpus lie."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PUBLISHED = ROOT / "leaderboards" / "published"
DEMO = ROOT / "benchmark" / "corpora" / "demo_data"
