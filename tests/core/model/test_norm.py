"""Norms that keep only their input: their gradients, what they keep, and that they compute what torch's own do."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gloria_core.model.modulation import Modulation
from gloria_core.model.norm import computing_dtype, layer_norm, scaled_norm, turned_norm
from gloria_core.model.rope import rope, rotate

DIM, HEADS, CPU = 24, 2, torch.device("cpu")
LENGTHS = {"one run": [6], "runs alike": [2, 2, 2], "a video and its anchors": [2, 2, 1, 1]}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.to(dtype).requires_grad_()


def rms(dtype: torch.dtype = torch.float64) -> nn.RMSNorm:
    norm = nn.RMSNorm(DIM, eps=1e-6, dtype=dtype)
    with torch.no_grad():
        norm.weight.copy_(draw(DIM, seed=5))
    return norm


def tables() -> dict[str, Tensor | None]:
    one = rope(DIM // HEADS, 3, (3, 2, 1), CPU)
    return {"none": None, "one": one, "a row": torch.stack([one, one.flip(0)])}


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("runs", LENGTHS)
def test_gradients_of_a_scaled_norm(runs: str, rows: int) -> None:
    """Clips may share their modulation, as anchors of one size do."""
    lengths = LENGTHS[runs]
    norm = nn.LayerNorm(DIM, eps=1e-6, elementwise_affine=False)
    shift, scale = (draw(rows, len(lengths), DIM, seed=seed) for seed in (1, 2))
    modulation = Modulation.of(torch.stack([shift, scale], dim=2), lengths)
    assert torch.autograd.gradcheck(
        lambda x, shift, scale: scaled_norm(norm, x, modulation, shift, scale), (draw(2, 6, DIM), shift, scale)
    )


@pytest.mark.parametrize("table", ["none", "one", "a row"])
def test_gradients_of_a_turned_norm(table: str) -> None:
    norm, turns = rms(), tables()[table]

    def turned(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(_Turned(norm, turns), {"norm.weight": weight}, (x,))

    assert torch.autograd.gradcheck(turned, (draw(2, 6, DIM), draw(DIM, seed=5)))


@pytest.mark.parametrize("table", ["none", "one", "a row"])
def test_gradients_may_come_in_any_layout(table: str) -> None:
    """That of a sum is one number, and the keys' comes transposed out of a plain product."""
    x, norm, turns = draw(2, 6, DIM, dtype=torch.float32), rms(torch.float32), tables()[table]
    made = turned_norm(norm, x, HEADS, turns)
    gradients = [made.detach().mT.contiguous().mT, torch.ones(1).expand_as(made)]
    for gradient in gradients:
        [found] = torch.autograd.grad(made, x, gradient, retain_graph=True)
        [expected] = torch.autograd.grad(made, x, gradient.contiguous(), retain_graph=True)
        torch.testing.assert_close(found, expected)


class _Turned(nn.Module):
    def __init__(self, norm: nn.Module, table: Tensor | None) -> None:
        super().__init__()
        self.norm, self.table = norm, table

    def forward(self, x: Tensor) -> Tensor:
        return turned_norm(self.norm, x, HEADS, self.table)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_computes_what_is_computed_without_gradients(dtype: torch.dtype) -> None:
    x, norm, table = draw(2, 6, DIM, dtype=dtype), nn.LayerNorm(DIM, elementwise_affine=False), tables()["one"]
    shift, scale = (draw(1, 3, DIM, seed=seed, dtype=dtype) for seed in (1, 2))
    modulation = Modulation.of(torch.stack([shift, scale], dim=2), [2, 2, 2])
    turning = rms(dtype)
    calls: list[Callable[[], Tensor]] = [
        lambda: scaled_norm(norm, x, modulation, shift, scale),
        lambda: turned_norm(turning, x, HEADS, table),
        lambda: turned_norm(turning, x, HEADS),
    ]
    assert table is not None
    plain = [modulation.scaled(norm(x), shift, scale), rotate(turning(x), HEADS, table), turning(x)]
    for call, expected in zip(calls, plain, strict=True):
        with torch.no_grad():
            assert torch.equal(call(), expected)
        assert torch.equal(call(), expected)


def test_tokens_keep_their_type_under_autocast_and_are_kept_once() -> None:
    """Whatever type the weights have; nothing beside the input is kept that is as long as the tokens."""
    x, table = draw(2, 6, DIM, dtype=torch.bfloat16), tables()["one"]
    shift, scale = (draw(1, 1, DIM, seed=seed, dtype=torch.bfloat16) for seed in (1, 2))
    modulation = Modulation.of(torch.stack([shift, scale], dim=2), [6])
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    for dtype in (torch.float32, torch.bfloat16):
        plain, scaled = nn.LayerNorm(DIM, dtype=dtype), nn.LayerNorm(DIM, elementwise_affine=False)
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            assert computing_dtype(x.float()) == torch.bfloat16
            made = [
                scaled_norm(scaled, x, modulation, shift, scale),
                layer_norm(plain, x),
                turned_norm(rms(dtype), x, HEADS, table),
            ]
        assert {y.dtype for y in made} == {torch.bfloat16}
    long = {t.untyped_storage().data_ptr() for t in kept if t.numel() >= x.numel()}
    assert long == {x.untyped_storage().data_ptr()}


def test_a_hosts_own_norm_is_called_as_it_is() -> None:
    """Hosts patch and cast weights inside their layers."""

    class Doubling(nn.RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    x, norm = draw(1, 6, DIM, dtype=torch.float32), Doubling(DIM)
    torch.testing.assert_close(turned_norm(norm, x, HEADS), 2 * turned_norm(nn.RMSNorm(DIM), x, HEADS))
