"""What a conversation has to look up in itself, against conversations written here by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from byte_model import byte_config

from unipixel.inputs import ModelInputs
from unipixel.model import UniPixel
from unipixel.tokens import load_tokenizer
from unipixel.train.links import Link, LinkFinder, LinkKind, OwnerReader, asked_layers, link_layers, link_losses
from unipixel.train.reading import read

_HEAD = "<|im_start|>user\nHere is an image with the following highlighted regions:\n"
_LINES = "[3]: small red ring\n[12]: big blue star\n"
_ANSWER = "<|im_end|>\n<|im_start|>assistant\n"
_END = "<|im_end|>\n"


def _found(text: str) -> tuple[list[int], tuple[Link, ...]]:
    tokenizer = load_tokenizer()
    ids = tokenizer(text).input_ids
    return ids, LinkFinder(tokenizer).find(ids)


def _said(ids: Sequence[int], places: Sequence[int]) -> str:
    return load_tokenizer().decode([ids[place] for place in places])


def test_ids_look_at_their_lines_and_lines_at_their_ids() -> None:
    ids, links = _found(f"{_HEAD}{_LINES}Is [12] left of [3] or of [7]?{_ANSWER}No, [3] is.{_END}")
    told = [(_said(ids, range(link.asking - 2, link.asking + 1)), _said(ids, link.targets)) for link in links
            if link.kind == "told"]  # fmt: skip
    assert told == [("12]", "big blue star"), ("[3]", "small red ring"), ("[3]", "small red ring")]
    owned: dict[str, list[int]] = {}
    for link in links:
        if link.kind == "owned":
            owned.setdefault(_said(ids, link.targets), []).append(link.asking)
    assert {name: _said(ids, places) for name, places in owned.items()} == {
        "3": "small red ring",
        "12": "big blue star",
    }


def test_the_letter_looks_at_its_option_and_options_at_what_they_are_about() -> None:
    question = "Which colour has [12]?\nOptions:\n(A) Red\n(B) Blue\nPlease only give the best option."
    ids, links = _found(f"{_HEAD}{_LINES}{question}{_ANSWER}Answer: Blue, so the best option is (B).{_END}")
    (chosen,) = (link for link in links if link.kind == "chosen")
    assert _said(ids, range(chosen.asking - 3, chosen.asking + 2)) == "is (B"
    assert _said(ids, chosen.targets) == "(B) Blue\n"
    read = [(_said(ids, range(link.asking - 3, link.asking + 2)), _said(ids, link.targets)) for link in links
            if link.kind == "read"]  # fmt: skip
    for asking in ("Red\n(", "lue\nP", "er: B"):
        assert (asking, "big blue star") in read
    assert ("is (B", "Blue") in read
    said = [_said(ids, [link.asking]) for link in links if link.kind == "told" and _said(ids, link.targets)[0] == "("]
    assert "".join(said) == "Blue"
    known = [(link.kind, _said(ids, [link.asking]), _said(ids, link.targets)) for link in links
             if link.kind in ("carried", "brought")]  # fmt: skip
    assert known == [*(("carried", letter, "B") for letter in "Blue"), ("brought", "(", "B")]


def test_an_answer_looks_where_its_words_stand() -> None:
    ids, links = _found(f"{_HEAD}{_LINES}What is [3]?{_ANSWER}It is a red ring.{_END}")
    read = [(_said(ids, [link.asking + 1]), _said(ids, link.targets)) for link in links if link.kind == "read"]
    assert read == [("I", "small red ring"), ("r", "r"), ("r", "r")]
    again, links = _found(f"{_HEAD}{_LINES}List them.{_ANSWER}[12]: big blue star\n[3]: small red ring{_END}")
    copied = {link.asking + 1: link.targets for link in links if link.kind == "read"}
    assert "".join(_said(again, [place]) for place in sorted(copied)) == "big blue star" + "small red ring"
    assert all(_said(again, [place]) == _said(again, targets) for place, targets in copied.items())


def test_without_a_memory_there_is_nothing_to_look_up() -> None:
    _, links = _found(f"<|im_start|>user\nWhat is [3]?{_ANSWER}A ring.{_END}")
    assert links == ()


def test_even_attention_finds_a_target_by_its_share_of_what_is_in_reach() -> None:
    torch.manual_seed(0)
    model = UniPixel(byte_config())
    for layer in model.model.language_model.layers:
        torch.nn.init.zeros_(layer.self_attn.k_proj.weight)
        torch.nn.init.zeros_(layer.self_attn.k_proj.bias)
    ids = torch.randint(0, 200, (2, 12))
    layers = {layer - 1 for layer in link_layers(model).values()}
    with torch.no_grad():
        reading = read(model, model.embed(ModelInputs(ids), ()), after=layers)
        losses = link_losses(
            model, reading, [[Link("told", 7, (1, 2))], [Link("told", 9, (0,)), Link("chosen", 4, (3, 4))]]
        )
    assert losses["told"].item() == pytest.approx((math.log(8 / 2) + math.log(10)) / 2, rel=1e-5)
    assert losses["chosen"].item() == pytest.approx(math.log(5 / 2), rel=1e-5)
    assert losses["read"].item() == losses["owned"].item() == 0


def test_owners_are_read_as_the_words_that_the_model_writes() -> None:
    torch.manual_seed(0)
    model = UniPixel(byte_config())
    ids = torch.randint(0, 200, (2, 12))
    links = [[Link("owned", 7, (1,)), Link("carried", 9, (4,))], [Link("brought", 5, (2,))]]
    with torch.no_grad():
        reading = read(model, model.embed(ModelInputs(ids), ()), after=asked_layers(model))
        reader = OwnerReader(model.config.width)
        loss = reader(model, reading, ids, links)
        layers = link_layers(model)
        expected = torch.zeros(())
        places: list[tuple[LinkKind, int, int, int]] = [("owned", 0, 7, 1), ("told", 0, 9, 4), ("read", 1, 5, 2)]
        for kind, row, asking, owner in places:
            state = reading.after(layers[kind])[row, asking]
            scores = model.lm_head.weight @ reader.layers(state)
            expected = expected - scores.log_softmax(dim=0)[ids[row, owner]]
        assert reader(model, reading, ids, [[], []]) == 0
    torch.testing.assert_close(loss, expected)


def test_a_reading_holds_what_attention_computes() -> None:
    torch.manual_seed(1)
    model = UniPixel(byte_config())
    ids = torch.randint(0, 200, (1, 9))
    embedded = model.embed(ModelInputs(ids), ())
    attention = model.model.language_model.layers[1].self_attn
    seen: dict[str, torch.Tensor] = {}
    handle = attention.register_forward_hook(lambda _module, _given, out: seen.update(out=out[0]))
    with torch.no_grad():
        reading = read(model, embedded, after=[0])
        handle.remove()
        queries, keys = reading.heads(1)
        assert queries.shape == keys.shape == (1, 2, 9, 8)
        # The first head of each shared key, put through values and compared with the layer's own answer.
        attention.o_proj.weight.copy_(torch.eye(32))
        handle = attention.register_forward_hook(lambda _module, _given, out: seen.update(out=out[0]))
        reading = read(model, embedded, after=[0])
        handle.remove()
        queries, keys = reading.heads(1)
        given = model.model.language_model.layers[1].input_layernorm(reading.after(0))
        values = attention.v_proj(given).view(1, 9, 2, 8).transpose(1, 2)
        causal = torch.full((9, 9), float("-inf")).triu(1)
        mixed = ((queries @ keys.transpose(-1, -2)) * 8**-0.5 + causal).softmax(dim=-1) @ values
    heads = seen["out"].view(1, 9, 4, 8).transpose(1, 2)[:, ::2]
    torch.testing.assert_close(mixed, heads, rtol=1e-4, atol=1e-5)
