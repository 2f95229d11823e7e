"""Scripts, styles and thumbnails of the pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from unipixel.demos.web.examples import EXAMPLES
from unipixel.demos.web.static_files import HEAD_HTML, add_static_routes, thumbnail_address

STATIC = Path(__file__).resolve().parents[3] / "demos" / "web" / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    add_static_routes(app)
    return TestClient(app)


@pytest.mark.parametrize(("name", "kind"), [("ask_page.js", "text/javascript"), ("style.css", "text/css")])
def test_files_are_served_as_they_are_with_their_type(client: TestClient, name: str, kind: str) -> None:
    response = client.get(f"/static/unipixel/{name}")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(kind)
    assert response.content == (STATIC / name).read_bytes()


def test_unchanged_file_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/static/unipixel/player.js")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/static/unipixel/player.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["missing.js", "..%2Fask_page.py", "%2e%2e%2fask_page.py", ".js", "static_files.py"])
def test_other_names_are_not_served(client: TestClient, name: str) -> None:
    assert client.get(f"/static/unipixel/{name}").status_code == 404


def test_every_example_has_a_thumbnail(client: TestClient) -> None:
    for number in range(1, len(EXAMPLES) + 1):
        response = client.get(f"/{thumbnail_address(number)}")
        assert response.content.startswith(b"\xff\xd8"), number
        assert response.headers["content-type"] == "image/jpeg"


def test_style_of_the_head_is_served(client: TestClient) -> None:
    address = re.search(r'href="([^"]+)"', HEAD_HTML)
    assert address is not None
    assert client.get(f"/{address[1]}").status_code == 200


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_imports_only_scripts_that_exist(script: Path) -> None:
    imported = re.findall(r"from '\./([\w.]+)'", script.read_text(encoding="utf-8"))
    assert [name for name in imported if not (STATIC / name).is_file()] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_never_interprets_text_as_html_or_code(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    forbidden = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser")
    assert [word for word in forbidden if word in text] == []


def test_scripts_and_styles_name_no_other_server() -> None:
    for file in (*SCRIPTS, STATIC / "style.css"):
        addresses = re.findall(r"(?:https?:|(?<![a-z]:))//[\w.-]+\.\w+[^\s'\"`)]*", file.read_text(encoding="utf-8"))
        assert [item for item in addresses if not item.startswith("http://www.w3.org/")] == [], file.name
