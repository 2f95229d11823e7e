"""What can be checked of the Dockerfile without Docker."""

from __future__ import annotations

import json
import re
from pathlib import Path

from unipixel.cli import build_parser

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_installed_extras_exist() -> None:
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"/src\[(\w+)\]", TEXT)) == {"serve"} <= set(extras)


def test_user_is_not_root() -> None:
    users = re.findall(r"^USER (\d+)", TEXT, re.MULTILINE)
    assert users
    assert int(users[-1]) > 0


def test_health_check_asks_for_the_status_and_only_tmp_is_written() -> None:
    assert ":8000/healthz" in re.findall(r"^HEALTHCHECK .*$", TEXT, re.MULTILINE)[0]
    assert re.findall(r"^VOLUME (.*)$", TEXT, re.MULTILINE) == ["/tmp"]
    assert "HF_HOME=/tmp/" in TEXT


def test_command_line_is_accepted() -> None:
    words = [
        word
        for name in ("ENTRYPOINT", "CMD")
        for word in json.loads(re.findall(rf"^{name} (.*)$", TEXT, re.MULTILINE)[0])
    ]
    arguments = build_parser().parse_args(words[1:])
    assert (arguments.host, arguments.port) == ("0.0.0.0", 8000)
