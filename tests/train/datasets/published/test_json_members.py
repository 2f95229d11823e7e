"""Members of JSON files found without parsing, against Python's parser."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from unipixel.train.datasets.published import json_members
from unipixel.train.datasets.published.json_members import JsonMembers


def draw_text(generator: random.Random) -> str:
    return "".join(generator.choice('ab"\\{}[],:é中\n ') for _ in range(generator.randint(0, 12)))


def draw_value(generator: random.Random, depth: int) -> Any:
    kind = generator.random()
    if depth == 0 or kind < 0.3:
        return generator.choice([draw_text(generator), 1, None, True, -1.5e-3])
    if kind < 0.65:
        return [draw_value(generator, depth - 1) for _ in range(generator.randint(0, 4))]
    return {draw_text(generator): draw_value(generator, depth - 1) for _ in range(generator.randint(0, 4))}


@pytest.mark.parametrize("chunk_bytes", [1, 2, 7, 64, 2**24])
def test_members_of_drawn_values_are_those_of_the_parser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(json_members, "_CHUNK_BYTES", chunk_bytes)
    generator, path = random.Random(chunk_bytes), tmp_path / "a.json"
    for _ in range(60):
        value = draw_value(generator, 4)
        if not isinstance(value, (list, dict)):
            continue
        is_ascii, indent = generator.random() < 0.5, generator.choice([None, 1])
        for document, keys in (({"a": 1, "videos": value, "z": [2]}, ("videos",)), (value, ())):
            path.write_text(json.dumps(document, indent=indent, ensure_ascii=is_ascii), encoding="utf-8")
            members = JsonMembers.read(path, keys)
            assert list(members) == (list(value.items()) if isinstance(value, dict) else value)
            assert len(members) == len(value)
            if members.is_object:
                spans = members.value_spans()
                assert {key: JsonMembers.read_value(path, span) for key, span in spans.items()} == value


def test_members_of_two_nested_objects_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": {"y": [1], "videos": [3, {"b": "],"}]}, "videos": []}', encoding="utf-8")
    assert list(JsonMembers.read(tmp_path / "a.json", ("x", "videos"))) == [3, {"b": "],"}]
    assert list(JsonMembers.read(tmp_path / "a.json", ("videos",))) == []


@pytest.mark.parametrize("text", ["", "[1, 2", '["a', "]", '{"a": [}', '["\\'])
def test_members_of_a_damaged_file_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON"):
        list(JsonMembers.read(tmp_path / "a.json"))


def test_members_of_another_structure_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, keys, message in (
        ('{"a": 1}', ("videos",), r"has no key 'videos': it has \['a'\]"),
        ('{"videos": 3}', ("videos",), "'videos' must be an array or object"),
        ("3", (), "must contain an array or object"),
        ("[1, x]", (), "not valid JSON in the member at byte 3"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            list(JsonMembers.read(path, keys))
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(ValueError, match="must contain an object"):
        JsonMembers.read(path).value_spans()
