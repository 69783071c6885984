"""From the names in a file to GloriaDiT's own: prefixes, Diffusers' names, and the tensors that only help a weight."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import CheckpointError
from ..names import from_diffusers

PREFIX = "diffusion_model."
"""Stands before the transformer's own names in a Gloria file, as LoRA files and the host have it."""

_LANDMARKS = (
    "head.modulation",
    "head.modulation.weight",
    "condition_embedder.time_proj.weight",
)
"""Names that only a Wan transformer has: what stands before them stands before all of its names. In the wild:
``model.diffusion_model.``, ``diffusion_model.``, ``model.``, ``transformer.``, ``module.``, or nothing."""

_SHARED_LANDMARK = "patch_embedding.weight"
"""A name that CLIP has too; Wan where ``blocks`` stand beside it, even if another landmark was lost."""

_COMPANIONS = re.compile(
    r"(first_stage_model|vae|text_encoders?|cond_stage_model|conditioner|clip_vision|audio_encoder|model_ema|codec|"
    r"optimizers?|optimizer_states|lr_schedulers?)\."
)
"""Beginnings of names that belong to other models in the same file, or to a trainer."""

_UNUSED = re.compile(r"blocks\.\d+\.attn2\.norm_added_q\.weight")
"""Written by some Diffusers tools for Wan, and used by nobody. Source: wan.md section 2."""

_HELPER_ENDINGS = {
    "scale_weight": "scale_weight",
    "weight_scale": "scale_weight",
    "scale_input": "scale_input",
    "input_scale": "scale_input",
    "comfy_quant": "comfy_quant",
}
"""How helpers of a quantised weight are spelled, and the one spelling used here."""

_HOST_TABLES = re.compile(r"(.*(?:^|\.)(?:modulation|emb_pos))\.weight")
"""How a host names the tables that are bare parameters in Wan, where it has made leaf layers of them."""

MARKER = "scaled_fp8"
"""Name of the tensor that marks a file whose float8 matrices have scales."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names in a file, sorted by what they are."""

    weights: dict[str, str]
    """Name in the file -> name in GloriaDiT."""
    helpers: dict[str, str]
    """Name in the file -> layer's path and ``.scale_weight``, ``.scale_input`` or ``.comfy_quant``."""
    marker: str | None
    """The name of the scaled_fp8 marker in the file."""
    prefix: str
    foreign: tuple[str, ...]
    """Names outside the prefix that belong to nothing known."""


def find_prefix(names: Iterable[str], what: str) -> str | None:
    """Return what stands before the names of a Wan transformer, or None where there is none.

    Raises:
        CheckpointError: the file holds several, such as weights and their running average.
    """
    names = list(names)
    found = _before(_LANDMARKS, names)
    found |= {
        prefix
        for prefix in _before((_SHARED_LANDMARK,), names)
        if any(name.startswith(f"{prefix}blocks.") for name in names)
    }
    found = {prefix for prefix in found if not _COMPANIONS.match(prefix)}
    if len(found) > 1:
        raise CheckpointError(
            f"{what} holds {len(found)} models, under {', '.join(sorted(repr(prefix) for prefix in found))}; which one "
            "is meant cannot be told. Save one of them alone."
        )
    return found.pop() if found else None


def _before(marks: Iterable[str], names: Iterable[str]) -> set[str]:
    return {name.removesuffix(mark) for name in names for mark in marks if name == mark or name.endswith(f".{mark}")}


def sort_names(names: Iterable[str], prefix: str, what: str) -> Names:
    """Rename and sort.

    Args:
        names: all names in the file.
        prefix: from ``find_prefix``.
        what: the file, for messages.

    Raises:
        CheckpointError: two tensors have the same meaning.
    """
    own = [name for name in names if name.startswith(prefix)]
    diffusers = any(name.startswith(f"{prefix}condition_embedder.") for name in own)
    weights: dict[str, str] = {}
    helpers: dict[str, str] = {}
    foreign = [name for name in names if not name.startswith(prefix) and not _COMPANIONS.match(name)]
    marker = None
    for name in own:
        inner = name.removeprefix(prefix)
        if inner == MARKER:
            marker = name
        elif _UNUSED.fullmatch(inner) or (not prefix and _COMPANIONS.match(inner)):
            continue
        elif _is_helper(inner):
            helpers[name] = _renamed(inner, diffusers)
        else:
            weights[name] = _renamed(inner, diffusers)
    for table in (weights, helpers):
        _refuse_doubles(table, what)
    return Names(weights, helpers, marker, prefix, tuple(foreign))


def own_module(module: str, prefix: str) -> str:
    """Return GloriaDiT's path of a layer that is named in a note, with the file's prefix, a usual one, or none."""
    for head in (prefix, "model.diffusion_model.", PREFIX):
        if head and module.startswith(head):
            module = module.removeprefix(head)
            break
    return from_diffusers(module) or module


def _is_helper(name: str) -> bool:
    return "." in name and name.rsplit(".", 1)[1] in _HELPER_ENDINGS


def _renamed(name: str, diffusers: bool) -> str:
    """Return our name; what no table knows keeps its own, and is told as unknown later."""
    if diffusers:
        whole = from_diffusers(name)
        if whole:
            return whole
    module, _, leaf = name.rpartition(".")
    leaf = _HELPER_ENDINGS.get(leaf, leaf)
    if diffusers:
        module = from_diffusers(module) or module
    renamed = f"{module}.{leaf}" if module else leaf
    table = _HOST_TABLES.fullmatch(renamed)
    return table[1] if table else renamed


def _refuse_doubles(table: dict[str, str], what: str) -> None:
    seen: dict[str, str] = {}
    for name, ours in table.items():
        if ours in seen:
            raise CheckpointError(
                f"{what} holds {ours!r} twice, as {seen[ours]!r} and as {name!r}; which one is meant cannot be told. "
                "Download the file again, or save one of the two models in it alone."
            )
        seen[ours] = name
