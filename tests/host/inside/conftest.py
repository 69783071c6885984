"""Puts the host on the path on its CPU settings, and imports the pack from its path as the host does."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, os.environ["GLORIA_HOST_FOLDER"])

import utils.install_util  # noqa: E402, F401 - as in the host's main: later, comfy/utils.py takes this name
from comfy.cli_args import args  # noqa: E402 - needs the path

args.cpu = True
args.use_pytorch_cross_attention = True

_spec = importlib.util.spec_from_file_location(
    "gloria_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
)
assert _spec is not None
assert _spec.loader is not None
_pack = importlib.util.module_from_spec(_spec)
sys.modules["gloria_pack"] = _pack
_spec.loader.exec_module(_pack)


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    """The host runs every node so."""
    with torch.inference_mode():
        yield
