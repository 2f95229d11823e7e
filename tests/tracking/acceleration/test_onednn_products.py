"""Matrix products through oneDNN: their values, and the cases that stay with PyTorch's own choice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from unipixel.tracking.acceleration import onednn_products
from unipixel.tracking.acceleration.onednn_products import OneDnnLinear, prefers_onednn, product, use_onednn

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use oneDNN on every processor, as far as this build of torch has it."""
    monkeypatch.setattr(onednn_products, "prefers_onednn", lambda: HAS_ONEDNN)


@pytest.fixture
def no_choice() -> Iterator[None]:
    """Forget the choice for this processor before and after a test."""
    prefers_onednn.cache_clear()
    yield
    prefers_onednn.cache_clear()


@pytest.mark.parametrize("shape", [(400, 128), (3, 200, 300), (1, 2864)])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.usefixtures("always")
def test_product_is_the_sum_of_products(shape: tuple[int, ...], has_bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(shape, generator=generator)
    columns = torch.randn(400, shape[-1], generator=generator)
    bias = torch.randn(400, generator=generator) if has_bias else None
    expected = rows.double() @ columns.double().t() + (bias.double() if bias is not None else 0)
    with torch.no_grad():
        torch.testing.assert_close(product(rows, columns, bias).double(), expected, rtol=0, atol=2e-4)
        # A transposed view, as in attention.
        torch.testing.assert_close(
            product(rows, columns.t().contiguous().t(), bias).double(), expected, rtol=0, atol=2e-4
        )


@pytest.mark.usefixtures("always")
def test_gradients_shorter_types_and_small_products_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    large, columns = torch.randn(1024, 64), torch.randn(64, 64, requires_grad=True)
    product(large, columns).sum().backward()
    assert columns.grad is not None
    assert columns.grad.abs().max() > 0

    def refuse(*_: object) -> None:
        raise AssertionError("oneDNN was called")

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", refuse, raising=False)
    with torch.no_grad():
        small = product(large[:8], columns)
        assert torch.equal(small, nn.functional.linear(large[:8], columns))
        assert product(large.double(), columns.double()).dtype == torch.float64
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert product(large, columns).dtype == torch.bfloat16


def test_linear_layers_keep_their_names_weights_and_values() -> None:
    module = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64, bias=False))
    names = list(module.state_dict())
    x = torch.randn(512, 64)
    with torch.no_grad():
        expected = module(x)
        use_onednn(module)
        torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)
    assert list(module.state_dict()) == names
    assert [type(layer) for layer in module] == [OneDnnLinear, nn.GELU, OneDnnLinear]


@pytest.mark.usefixtures("no_choice")
@pytest.mark.parametrize(
    ("vendor", "capability", "is_preferred"),
    [("AuthenticAMD", "AVX512", True), ("GenuineIntel", "AVX512", False), ("AuthenticAMD", "AVX2", False)],
)
def test_onednn_is_preferred_where_mkl_leaves_avx512_unused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, capability: str, is_preferred: bool
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: x\n", encoding="utf-8")
    monkeypatch.setattr(onednn_products, "_CPU_INFO", info)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for backend in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(backend, "is_available", lambda: True)
    assert prefers_onednn() is (is_preferred and hasattr(torch.ops.mkldnn, "_linear_pointwise"))


@pytest.mark.usefixtures("no_choice")
def test_a_system_without_a_description_of_its_processor_keeps_torchs_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn_products, "_CPU_INFO", tmp_path / "missing")
    assert prefers_onednn() is False
