"""Reading of pickled annotations."""

import collections
import decimal
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unipixel.train.datasets.plain_pickle import read_plain_pickle

VALUES = {
    "refs": [{"ref_id": 1, "sent": "l'élève 红", "split": "train", "tokens": ("a", "b")}, None, True, False],
    "numbers": [0, -1, 2**80, 1.5, float("inf")],
    "bytes": [b"", b"\x00\xffPQ]\\", {3: {1, 2}, 4: frozenset({5})}],
}


class CallsSystem:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("called",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_read_plain_pickle_of_any_protocol_returns_the_values(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(VALUES, protocol))
    assert read_plain_pickle(tmp_path / "refs(unc).p") == VALUES


def test_read_plain_pickle_of_python_2_returns_text(tmp_path: Path) -> None:
    # What Python 2.7 writes for [{'sent': 'the man', 'raw': u'caf\xe9'}] in protocols 0 and 2.
    (tmp_path / "0.p").write_bytes(b"(lp0\n(dp1\nS'raw'\np2\nVcaf\xe9\np3\nsS'sent'\np4\nS'the man'\np5\nsa.")
    (tmp_path / "2.p").write_bytes(
        b"\x80\x02]q\x00}q\x01(U\x03rawq\x02X\x05\x00\x00\x00caf\xc3\xa9q\x03U\x04sentq\x04U\x07the manq\x05ua."
    )
    for name in ("0.p", "2.p"):
        assert read_plain_pickle(tmp_path / name) == [{"raw": "café", "sent": "the man"}]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (CallsSystem(), "(__builtin__|builtins).print"),
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (decimal.Decimal(1), "decimal.Decimal"),
        (np.float64(1.0), "numpy.*scalar"),
        (np.zeros(2), "numpy.*(reconstruct|frombuffer)"),
        (pickle.loads, "c?_?[pP]ickle.loads"),
    ],
)
def test_read_plain_pickle_with_anything_else_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: int, value: Any, name: str
) -> None:
    (tmp_path / "a.p").write_bytes(pickle.dumps([value], protocol))
    with pytest.raises(ValueError, match=rf"a\.p is refused: it contains ({name})"):
        read_plain_pickle(tmp_path / "a.p")
    assert capsys.readouterr().out == ""


def test_read_plain_pickle_with_other_calls_is_refused(tmp_path: Path) -> None:
    for content, message in (
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", "encoding 'hex'"),
        (b"cos\nsystem\n(S'true'\ntR.", "it contains os.system"),
        (b"(S'true'\nios\nsystem\n.", "it contains os.system"),
        (b"\x80\x02Pname\n.", "it contains PERSID"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "memo index 2147483647"),
    ):
        (tmp_path / "a.p").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_plain_pickle(tmp_path / "a.p")


def test_read_plain_pickle_of_a_damaged_file_is_refused(tmp_path: Path) -> None:
    whole = pickle.dumps(VALUES)
    for content in (b"", b"{}", whole[:20], whole[:-1], b"\x80\x02}R.", b"\x80\x02cbuiltins\nset\nK\x05\x85R."):
        (tmp_path / "a.p").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.p is (not a readable pickle|refused)"):
            read_plain_pickle(tmp_path / "a.p")


def test_read_plain_pickle_of_a_file_above_the_maximum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.p").write_bytes(pickle.dumps(VALUES))
    with pytest.raises(ValueError, match="at most 10 are read from a pickle"):
        read_plain_pickle(tmp_path / "a.p", max_bytes=10)
