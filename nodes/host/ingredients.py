"""What the host's objects are, by digest: by these a run finds its finished chunks again, also in another process."""

import weakref
from collections.abc import Iterator
from typing import Any

import comfy.clip_vision
import comfy.model_base
import comfy.model_patcher
import comfy.samplers
from torch import Tensor

from ...gloria_core.runs import ingredients as core
from ...gloria_core.runs.chunk_file import Ingredient
from ...gloria_core.runs.digest import digest_of, digest_of_weights
from ...gloria_core.runs.ingredients import plain, text_digest
from ..sockets import Conditioning
from .model import CACHE, model_config
from .network import tables

_WEIGHTS: "weakref.WeakKeyDictionary[comfy.model_base.BaseModel, str]" = weakref.WeakKeyDictionary()
"""Digests of the weights of models that were asked for; weights are never changed, only patched."""

_NOT_LOOKED_INTO = (CACHE, "callbacks", "wrappers", "sigmas", "sample_sigmas")
"""Model options that say how and not what: progress, previews, our own cache."""


def model_ingredient(*patchers: comfy.model_patcher.ModelPatcher | None) -> Ingredient:
    """Return what a MODEL, or a pair of experts, is: weights, LoRAs and whatever else changes its output."""
    present = [patcher for patcher in patchers if patcher is not None]
    return core.model_ingredient(
        *(core.ModelPart(config=model_config(p), weights=_weights(p), changes=_changes(p)) for p in present)
    )


def _weights(patcher: comfy.model_patcher.ModelPatcher) -> str:
    known = _WEIGHTS.get(patcher.model)
    if known is None:
        known = _WEIGHTS[patcher.model] = digest_of_weights(_unpatched(patcher))
    return known


def _unpatched(patcher: comfy.model_patcher.ModelPatcher) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights by the core's names and as their file has them, also while LoRAs are worked into them."""
    network = patcher.model.diffusion_model
    own_names = {f"{name}.weight": name for name in tables(network)}
    for name, weight in network.named_parameters():
        kept = patcher.backup.get(f"diffusion_model.{name}")
        yield own_names.get(name, name), weight if kept is None else kept.weight


def _changes(patcher: comfy.model_patcher.ModelPatcher) -> list[Any]:
    """Return what nodes have put onto a MODEL. The noise schedule counts by the noise levels that come of it."""
    objects = {name: type(value).__qualname__ for name, value in patcher.object_patches.items()}
    transformer = dict(patcher.model_options.get("transformer_options", {}))
    options = {name: value for name, value in transformer.items() if name not in _NOT_LOOKED_INTO}
    changes = [patcher.patches, objects, options]
    return plain(changes) if any(changes) else []


def sampler_ingredient(sampler: comfy.samplers.Sampler, sigmas: Tensor) -> Ingredient:
    """Return what a SAMPLER with its noise levels is."""
    function = getattr(sampler, "sampler_function", None)
    name = getattr(function, "__name__", type(sampler).__name__).removeprefix("sample_")
    options = [getattr(sampler, name, {}) for name in ("extra_options", "inpaint_options")]
    return core.solver_ingredient(name, sigmas, plain(options) if any(options) else [])


def conditioning_digest(conditioning: Conditioning) -> str:
    """Return the digest of a CONDITIONING: rows of text and all that rides on them."""
    return text_digest(*((rows, options) for rows, options in conditioning))


def picture_ingredient(*pictures: Tensor | comfy.clip_vision.Output | None) -> Ingredient | None:
    """Return what pictures, and what CLIP sees in them, are; None where there are none."""
    return Ingredient(digest_of(plain(list(pictures)))) if any(p is not None for p in pictures) else None
