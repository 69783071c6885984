import copy

import pytest
import torch
from torch import nn

from gloria_core.config import AudioConfig, ModelConfig
from gloria_core.model import GloriaDiT
from gloria_core.model.table import Table
from gloria_core.nano.bundle import load_bundle
from gloria_core.train.optim import named_parameters

FLF = ModelConfig(
    dim=24, ffn_dim=16, num_heads=2, num_layers=2, text_dim=8, text_length=4, freq_dim=16, clip_dim=6, clip_positions=8,
    audio=AudioConfig(feature_dim=5, dim=6),
)  # fmt: skip
PLAIN = {"blocks.0.modulation", "blocks.1.modulation", "head.modulation", "img_emb.emb_pos"}


class Lent(nn.Module):
    """A host's own table: another class with the same constructor, weight and call."""

    def __init__(self, *shape: int, device: object = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(*shape, dtype=dtype))

    def forward(self, like: torch.Tensor) -> torch.Tensor:
        return self.weight.to(like)


class Operations:
    Linear, LayerNorm, RMSNorm, Conv3d, Embedding, Table = (
        nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Conv3d, nn.Embedding, Lent,
    )  # fmt: skip


def tables(dit: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in dit.named_modules() if name in PLAIN}


def test_weights_files_hold_tables_under_wans_plain_names() -> None:
    dit = GloriaDiT(FLF)
    names = dit.state_dict().keys()
    assert names >= PLAIN
    assert not any(f"{name}.weight" in names for name in PLAIN)
    assert tables(dit).keys() == PLAIN
    assert all(isinstance(m, Table) for m in tables(dit).values())


@pytest.mark.parametrize("assign", [False, True])
def test_tables_load_by_their_plain_names(assign: bool) -> None:
    dit = GloriaDiT(FLF, device="meta" if assign else None)
    weights = {name: torch.full(t.shape, float(i)) for i, (name, t) in enumerate(dit.state_dict().items())}
    dit.load_state_dict(weights, assign=assign)
    again = copy.deepcopy(dit).state_dict()
    assert all(torch.equal(again[name], t) for name, t in weights.items())
    assert weights.keys() == again.keys()  # the caller's dictionary is left alone


def test_a_missing_or_foreign_table_is_named_plainly() -> None:
    dit = GloriaDiT(FLF)
    weights = dit.state_dict()
    weights["blocks.1.modulations"] = weights.pop("blocks.1.modulation")
    missing, unexpected = dit.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["blocks.1.modulation"], ["blocks.1.modulations"])


def test_a_host_lends_tables_that_load_the_same_files() -> None:
    dit = GloriaDiT(FLF, operations=Operations)
    assert all(isinstance(m, Lent) for m in tables(dit).values())
    weights = {name: t + 1 for name, t in GloriaDiT(FLF).state_dict().items()}
    dit.load_state_dict(weights)
    for name, module in tables(dit).items():
        torch.testing.assert_close(module.weight, weights[name], equal_nan=True)


def test_no_parameter_lies_outside_a_leaf_layer() -> None:
    """A host moves, casts and patches leaf layers only (wan.md trap 12)."""
    for _, module in GloriaDiT(FLF).named_modules():
        if any(True for _ in module.children()):
            assert not list(module.parameters(recurse=False))


def test_the_trainer_sees_the_names_of_weights_files() -> None:
    dit = GloriaDiT(FLF)
    found = named_parameters({"dit": dit})
    assert list(found) == [f"dit.{name}" for name in dit.state_dict()]
    assert list(found.values()) == list(dit.parameters())  # the optimisers' state goes by this order
    assert next(name for name in found if "blocks.0" in name) == "dit.blocks.0.modulation"


def test_nano_still_loads() -> None:
    bundle = load_bundle()
    dit = bundle.model()
    assert dit.state_dict().keys() == bundle.dit.keys()
