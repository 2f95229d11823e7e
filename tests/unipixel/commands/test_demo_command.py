from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from unipixel.cli import main
from unipixel.commands.demo import check_public, is_loopback, public_name, read_users

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"])
def test_addresses_of_this_machine_need_no_log_in(host: str) -> None:
    assert is_loopback(host)
    check_public(host, is_shared=False, has_users=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_public_address_needs_a_log_in_or_the_flag(host: str) -> None:
    with pytest.raises(ValueError, match=r"--auth FILE.*--public-without-auth"):
        check_public(host, is_shared=False, has_users=False)
    check_public(host, is_shared=False, has_users=True)


def test_shared_page_needs_a_log_in_too() -> None:
    with pytest.raises(ValueError, match="--share makes the page public"):
        check_public("127.0.0.1", is_shared=True, has_users=False)


def test_command_refuses_a_public_page_before_it_loads_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--host", "0.0.0.0", "--model", "no-such-model"]) == 2
    assert "--auth" in capsys.readouterr().err


def test_folder_of_a_model_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "private" / "model").mkdir(parents=True)
    assert public_name(str(tmp_path / "private" / "model")) == "model"
    monkeypatch.chdir(tmp_path / "private" / "model")
    assert public_name(".") == "model"
    assert public_name("facebook/sam2.1-hiera-tiny") == "facebook/sam2.1-hiera-tiny"


def test_users_are_read_from_lines(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("# people\nann:se:cret\n\n bob :x\n")
    assert read_users(tmp_path / "users") == [("ann", "se:cret"), ("bob", "x")]


@pytest.mark.parametrize("text", ["ann\n", ":secret\n", "ann:\n"])
def test_bad_line_of_users_is_named_without_its_password(tmp_path: Path, text: str) -> None:
    (tmp_path / "users").write_text(text)
    with pytest.raises(ValueError, match="line 1: a line must be NAME:PASSWORD") as caught:
        read_users(tmp_path / "users")
    assert "secret" not in str(caught.value)


def test_file_without_users_is_refused(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("# nobody\n")
    with pytest.raises(ValueError, match="contains no user"):
        read_users(tmp_path / "users")


def test_missing_gradio_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo"]) == 2
    assert "unipixel-agent[demo]" in capsys.readouterr().err


def test_taken_port_is_reported(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--port", str(port), "--model", str(checkpoint)]) == 2
    assert f"port {port}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--port", "70000"), ("--max-seconds", "0"), ("--max-sessions", "-1"), ("--max-upload-mb", "nan")],
)
def test_number_out_of_range_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", option, value, "--model", "no-such-model"]) == 2
    assert capsys.readouterr().err.startswith("unipixel: ")


def test_command_serves_until_it_is_interrupted_and_leaves_nothing(tmp_path: Path, checkpoint: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "unipixel.cli", "demo", "--model", str(checkpoint), "--port", str(port)]
    process = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        # A shell ignores SIGINT in its background jobs, and child processes inherit this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        line = next(line for line in lines if "The demo is at" in line)
        address = re.search(r"http://\S+", line)
        assert address is not None
        assert "UniPixel" in httpx.get(address[0], timeout=300).text
        # The page answers before the model is loaded; the folder of the demo is made meanwhile.
        deadline = time.monotonic() + 300
        while not list(scratch.glob("unipixel-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(scratch.glob("unipixel-*"))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)
    finally:
        process.kill()
    process.wait(timeout=30)
    assert process.returncode == 130
    assert [entry.name for entry in scratch.iterdir() if entry.name.startswith("unipixel-")] == []
