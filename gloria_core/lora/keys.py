"""What trainers call Wan's layers and a LoRA's matrices, and the one spelling that is used here.

Source: wan.md section 7 (files in the wild) and section 2 (Diffusers' names). Dots and underscores are treated alike,
so that one table serves the dotted and the flat (``lora_unet_blocks_0_self_attn_q``) spelling of every naming.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..names import BLOCK_FROM_DIFFUSERS, TOP_FROM_DIFFUSERS

_PREFIXES = (
    "lora_unet_", "lora_transformer_", "lycoris_", "base_model.model.", "model.diffusion_model.", "diffusion_model.",
    "pipe.dit.", "dit.", "transformer_2.", "transformer.", "module.", "model.", "unet.",
)  # fmt: skip
"""What stands before the layer's own name; taken off again and again, as some trainers stack them."""

_ADAPTER = r"(?:\.(?!bias$)[\w-]+)?"
"""PEFT puts the adapter's name, mostly ``default``, behind the matrix."""

_ENDINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), part)
    for pattern, part in (
        (rf"\.lora_(?:B|up){_ADAPTER}\.bias", "lora_up.bias"),
        (rf"(?:\.lora_(?:A|down|linear_layer\.down)|[._]lora\.down){_ADAPTER}(?:\.weight)?", "lora_down.weight"),
        (rf"(?:\.lora_(?:B|up|linear_layer\.up)|[._]lora\.up){_ADAPTER}(?:\.weight)?", "lora_up.weight"),
        (r"\.lora_mid(?:\.weight)?", "lora_mid.weight"),
        (rf"\.(?:dora_scale|lora_magnitude_vector){_ADAPTER}(?:\.weight)?", "dora_scale"),
        (rf"\.(hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)){_ADAPTER}", r"\1"),
        (r"\.(alpha|oft_blocks|rescale|reshape_weight|set_weight)", r"\1"),
        (r"\.([ab][12])\.weight", r"\1.weight"),
        (r"\.(?:diff|w_norm)", "diff"),
        (r"\.(?:diff_b|b_norm)", "diff_b"),
    )
)
"""How the end of a key is spelled, and what the host's adapters call that part."""

_TABLE_ENDING = ".diff_m"
"""lightx2v's change of a block's (or the head's) modulation table, named by the block instead of the table."""


def _spellings(from_diffusers: Mapping[str, str]) -> dict[str, str]:
    """Return Wan's layer names by Wan's, Diffusers' and mixed spellings, all flat."""
    found = {flat(wan): wan for wan in from_diffusers.values()}
    for theirs, wan in from_diffusers.items():
        mixed = theirs.replace("attn1.", "self_attn.").replace("attn2.", "cross_attn.")
        for name in (theirs, mixed):
            found |= {flat(name): wan, flat(name.removesuffix(".0")): wan} if "to_out" in name else {flat(name): wan}
    return found


def flat(name: str) -> str:
    """Return a name with underscores where dots were."""
    return name.replace(".", "_").strip("_")


_BLOCK_LAYERS, _TOP_LAYERS = _spellings(BLOCK_FROM_DIFFUSERS), _spellings(TOP_FROM_DIFFUSERS)


@dataclass(frozen=True, slots=True)
class LoraKey:
    """One key of a LoRA file, taken apart."""

    layer: str
    """Wan's name of the layer, such as ``blocks.0.self_attn.q``; an unknown layer keeps the name it had."""
    part: str
    """Which matrix or number of the layer this is, as the host's adapters call it."""
    trained_as: str
    """The layer's name as the trainer spells it, without a prefix; PEFT's patterns are written for these."""


def flat_names(layers: Iterable[str]) -> dict[str, str]:
    """Return a model's layer names by their flat spelling, for ``read_key``."""
    return {flat(layer): layer for layer in layers}


def read_key(key: str, known: Mapping[str, str]) -> LoraKey | None:
    """Take a key of a LoRA file apart; None where its end is not that of any kind of LoRA.

    Args:
        key: the key as it stands in the file.
        known: ``flat_names`` of the model's own layers: those that are not Wan's (an audio branch) are found there.
    """
    if key.endswith(_TABLE_ENDING):
        holder = _strip(key.removesuffix(_TABLE_ENDING))
        return LoraKey(wan_layer(holder + ".modulation", known), "diff", holder)
    for pattern, part in _ENDINGS:
        match = re.fullmatch(rf"(?P<layer>.+?){pattern.pattern}", key)
        if match:
            name = _strip(match["layer"])
            return LoraKey(wan_layer(name, known), _part(match, part), name)
    return None


def wan_layer(name: str, known: Mapping[str, str]) -> str:
    """Return Wan's name of a layer that a trainer may have spelled otherwise; an unknown name is returned as it is."""
    spelled = flat(name).replace("processor_", "")
    if spelled in known:
        return known[spelled]
    block = re.fullmatch(r"blocks_(\d+)_(\w+)", spelled)
    if block and block[2] in _BLOCK_LAYERS:
        return f"blocks.{block[1]}.{_BLOCK_LAYERS[block[2]]}"
    return _TOP_LAYERS.get(spelled, name)


def _part(match: re.Match[str], part: str) -> str:
    return part.replace(r"\1", match[2]) if r"\1" in part else part


def _strip(name: str) -> str:
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name, stripped = name.removeprefix(prefix).lstrip("_"), True
    return name
