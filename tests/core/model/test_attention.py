"""Which kernel is taken outside a host. CUDA devices and xformers are played; the choice and the shapes are real."""

import logging
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from gloria_core.config import ModelConfig
from gloria_core.model import GloriaDiT
from gloria_core.model import attention as module
from gloria_core.model.attention import choose_attention, cudnn_attention, torch_attention, xformers_attention


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention as its definition has it, head by head."""
    out = []
    for q_, k_, v_ in zip(*(x.chunk(heads, dim=-1) for x in (q, k, v)), strict=True):
        out.append((q_ @ k_.transpose(1, 2) / q_.shape[-1] ** 0.5).softmax(dim=-1) @ v_)
    return torch.cat(out, dim=-1)


def memory_efficient(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What xformers does, (B, L, N, K) in and out."""
    return scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


@pytest.fixture(autouse=True)
def _choose_anew() -> Iterator[None]:
    choose_attention.cache_clear()
    yield
    choose_attention.cache_clear()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Play a machine with a GPU, and xformers with a kernel (None: not installed) and a C library or not."""

    def play(capability: tuple[int, int], kernel: object = None, library: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch, "ones", lambda *shape, **_cuda: torch.full(shape, 1.0))
        package, ops = ModuleType("xformers"), ModuleType("xformers.ops")
        package._has_cpp_library, ops.memory_efficient_attention = library, kernel  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "xformers", package if kernel else None)  # None makes the import fail
        monkeypatch.setitem(sys.modules, "xformers.ops", ops if kernel else None)

    return play


@pytest.mark.parametrize("attend", [torch_attention, xformers_attention(memory_efficient), cudnn_attention])
def test_every_callable_attends(attend: Callable[..., Tensor]) -> None:
    q, k, v = draw(2, 5, 24), draw(2, 7, 24, seed=1), draw(2, 7, 24, seed=2)
    made = attend(q, k, v, 3, low_precision=False, transformer_options={"other": 1})
    assert made.shape == (2, 5, 24)
    torch.testing.assert_close(made, plain(q, k, v, 3))


def test_xformers_sees_heads_before_width(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Size] = []

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append(k.shape)
        return memory_efficient(q, k, v)

    monkeypatch.setattr(Tensor, "is_cuda", True)
    q, k = draw(2, 5, 24), draw(2, 7, 24, seed=1)
    torch.testing.assert_close(xformers_attention(kernel)(q, k, k, 3), plain(q, k, k, 3))
    assert seen == [(2, 7, 3, 8)]


def test_without_a_gpu_torch_attends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    choice = choose_attention()
    assert choice.attend is torch_attention
    assert choice.name == "torch"
    assert "no CUDA device" in choice.reason


def no_kernel(*_tensors: Tensor) -> Tensor:
    raise NotImplementedError("No operator found for `memory_efficient_attention_forward`")


@pytest.mark.parametrize(
    ("kernel", "library", "reason"),
    [
        (None, True, "xformers cannot be imported"),
        (memory_efficient, False, "C library does not load"),
        (no_kernel, True, "No operator found"),
        (lambda q, k, v: q * float("nan"), True, "NaN"),
    ],
    ids=["absent", "built for another torch", "no kernel", "wrong numbers"],
)
def test_xformers_that_does_not_work_is_passed_by(
    machine: Callable[..., None], kernel: object, library: bool, reason: str
) -> None:
    machine((8, 9), kernel, library)
    choice = choose_attention()
    assert choice.attend is torch_attention
    assert reason in choice.reason


def test_xformers_that_works_is_taken(machine: Callable[..., None]) -> None:
    machine((9, 0), memory_efficient)
    choice = choose_attention()
    assert choice.name == "xformers"
    q = draw(1, 5, 24)
    torch.testing.assert_close(choice.attend(q, q, q, 3), plain(q, q, q, 3))


@pytest.mark.parametrize(("capability", "attend"), [((8, 9), torch_attention), ((9, 0), cudnn_attention)])
def test_cudnn_comes_first_from_hopper_on(
    machine: Callable[..., None], capability: tuple[int, int], attend: Callable[..., Tensor]
) -> None:
    machine(capability)
    assert choose_attention().attend is attend


def test_cudnn_is_asked_first_and_the_order_is_put_back() -> None:
    before = torch._C._get_sdp_priority_order()
    inside = []

    def kernel(*tensors: Tensor) -> Tensor:
        inside.append(torch._C._get_sdp_priority_order())
        return tensors[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "scaled_dot_product_attention", kernel)
        cudnn_attention(draw(1, 5, 24), draw(1, 5, 24), draw(1, 5, 24), 3)
    assert inside[0][0] == torch.nn.attention.SDPBackend.CUDNN_ATTENTION.value
    assert torch._C._get_sdp_priority_order() == before


def test_it_is_chosen_once_and_told_once(
    machine: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine((8, 0))
    with caplog.at_level(logging.INFO, logger="gloria_core.model.attention"):
        first = choose_attention()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert choose_attention() is first
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("Attention: torch (xformers cannot be imported")


def test_a_network_takes_what_is_lent_else_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(dim=24, ffn_dim=16, num_heads=2, num_layers=1, text_dim=8, text_length=4, freq_dim=16)

    def lent(q: Tensor, k: Tensor, v: Tensor, heads: int, **_options: object) -> Tensor:
        return q

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert GloriaDiT(config, attention=lent).blocks[0].self_attn.attention is lent
    assert choose_attention.cache_info().currsize == 0  # what is lent is enough: nobody looked
    assert GloriaDiT(config).blocks[0].self_attn.attention is torch_attention
