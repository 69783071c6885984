"""What the host's objects are, by digest: by these a run finds its finished chunks again, also in another process."""

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import comfy.clip_vision
import comfy.model_base
import comfy.model_patcher
import comfy.samplers
from torch import Tensor, nn

from ...gloria_core.runs.chunk_file import Ingredient
from ...gloria_core.runs.digest import digest_of, digest_of_weights
from ...gloria_core.types import AnchorSet
from ..sockets import Conditioning
from .model import CACHE, model_config

_WEIGHTS: "weakref.WeakKeyDictionary[comfy.model_base.BaseModel, str]" = weakref.WeakKeyDictionary()
"""Digests of the weights of models that were asked for; weights are never changed, only patched."""

_DEEP = 8

_NOT_LOOKED_INTO = (CACHE, "callbacks", "wrappers", "sigmas", "sample_sigmas")
"""Model options that say how and not what: progress, previews, our own cache."""


def model_ingredient(*patchers: comfy.model_patcher.ModelPatcher | None) -> Ingredient:
    """Return what a MODEL, or a pair of experts, is: weights, LoRAs and whatever else changes its output."""
    present = [patcher for patcher in patchers if patcher is not None]
    parts = [[_weights(p), model_config(p).to_json(), _plain(p.patches), _options(p)] for p in present]
    return Ingredient(digest_of(parts), " and ".join(model_config(p).name for p in present))


def _weights(patcher: comfy.model_patcher.ModelPatcher) -> str:
    known = _WEIGHTS.get(patcher.model)
    if known is None:
        known = _WEIGHTS[patcher.model] = digest_of_weights(_unpatched(patcher))
    return known


def _unpatched(patcher: comfy.model_patcher.ModelPatcher) -> Iterator[tuple[str, Tensor]]:
    """Yield the network's weights as their file has them, also while LoRAs are worked into them on the device."""
    for name, weight in patcher.model.diffusion_model.named_parameters():
        kept = patcher.backup.get(f"diffusion_model.{name}")
        yield name, weight if kept is None else kept.weight


def _options(patcher: comfy.model_patcher.ModelPatcher) -> Any:  # noqa: ANN401 - whatever JSON can say
    """Return what nodes have put onto a MODEL. The noise schedule counts by the noise levels that come of it."""
    objects = {name: type(value).__qualname__ for name, value in patcher.object_patches.items()}
    transformer = dict(patcher.model_options.get("transformer_options", {}))
    return _plain([objects, {k: v for k, v in transformer.items() if k not in _NOT_LOOKED_INTO}])


def sampler_ingredient(sampler: comfy.samplers.Sampler, sigmas: Tensor) -> Ingredient:
    """Return what a SAMPLER with its noise levels is."""
    function = getattr(sampler, "sampler_function", None)
    name = getattr(function, "__name__", type(sampler).__name__).removeprefix("sample_")
    options = [getattr(sampler, name, {}) for name in ("extra_options", "inpaint_options")]
    return Ingredient(digest_of(name, _plain(options), sigmas.float()), f"{name}, {len(sigmas) - 1} steps")


def conditioning_digest(conditioning: Conditioning | None) -> str:
    """Return the digest of a CONDITIONING: rows of text and all that rides on them."""
    return digest_of(_plain(conditioning))


def anchors_ingredient(anchors: AnchorSet) -> Ingredient:
    """Return what a set of anchors is, and how each is attached."""
    parts = [_plain({field.name: getattr(anchor, field.name) for field in fields(anchor)}) for anchor in anchors]
    return Ingredient(digest_of(sorted(parts, key=str)), ", ".join(anchor.name for anchor in anchors) or "none")


def picture_ingredient(*pictures: Tensor | comfy.clip_vision.Output | None) -> Ingredient | None:
    """Return what pictures, and what CLIP sees in them, are; None where there are none."""
    return Ingredient(digest_of(_plain(list(pictures)))) if any(p is not None for p in pictures) else None


def _plain(value: Any, depth: int = 0) -> Any:  # noqa: ANN401 - anything in, what JSON can say out
    """Describe a value: tensors by digest, functions by name, objects by class and contents as deep as that is sane."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return digest_of_weights([("", value)])
    if isinstance(value, range):
        return [value.start, value.stop, value.step]
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(str(_plain(inner, depth + 1)) for inner in value)
    if isinstance(value, list | tuple):
        return [_plain(inner, depth + 1) for inner in value]
    if callable(value) and hasattr(value, "__qualname__"):
        return value.__qualname__
    if isinstance(value, nn.Module) or depth > _DEEP:
        return type(value).__qualname__
    if is_dataclass(value):
        contents: Mapping[str, Any] = {field.name: getattr(value, field.name) for field in fields(value)}
    else:
        contents = getattr(value, "__dict__", {})
    return [type(value).__qualname__, {name: _plain(inner, depth + 1) for name, inner in sorted(contents.items())}]
