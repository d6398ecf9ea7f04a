"""The language server; only the environment of `make types` has it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGE_SERVER = ROOT / ".envs/pyright/bin/pyright-langserver"

collect_ignore_glob = [] if LANGUAGE_SERVER.exists() else ["test_*.py"]
