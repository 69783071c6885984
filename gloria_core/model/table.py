"""A learned table of numbers as a layer of its own, so that a host can move, cast and patch it like any other layer.

Wan holds such tables (``blocks.0.modulation``, ``head.modulation``, ``img_emb.emb_pos``) as bare parameters beside
other layers. Hosts walk over leaf modules and pass those by: patches on them are accepted and never applied.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..protocols import Operations


class Table(nn.Module):
    """Holds one parameter, ``weight``, whose name in weights files is the module's own name: ``blocks.0.modulation``.

    Args:
        shape: the table's shape.
        device: where it is made.
        dtype: type of its numbers.
    """

    def __init__(self, *shape: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*shape, device=device, dtype=dtype))

    def forward(self, like: Tensor) -> Tensor:
        """Return the table in the type and on the device of ``like``."""
        return self.weight.to(like)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[prefix.removesuffix(".")] = self.weight if keep_vars else self.weight.detach()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        *complaints: list[str],
    ) -> None:
        missing: list[str] = []
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, *complaints)
        missing_keys += [prefix.removesuffix(".") for _ in missing]


def make_table(parent: nn.Module, *shape: int, ops: Operations, factory: dict[str, Any]) -> nn.Module:
    """Return a table for ``parent`` to keep, and let ``parent`` load it by its plain name.

    A host's operations may bring a ``Table`` of their own: a module with the same constructor, ``weight`` and call.
    """
    parent.register_load_state_dict_pre_hook(_name_as_layers)
    table: nn.Module = getattr(ops, "Table", Table)(*shape, **factory)
    return table


def _name_as_layers(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_rest: object) -> None:
    """Append ``.weight`` to the names of tables: torch hands a layer only what begins with its name and a dot."""
    for name, _ in module.named_children():
        if prefix + name in state_dict:
            state_dict[f"{prefix}{name}.weight"] = state_dict.pop(prefix + name)
