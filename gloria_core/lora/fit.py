"""Which parts of a LoRA fit a model, which do not and why, in words for people."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch

from ..config import ModelConfig
from ..errors import LoraError
from .foreign import what_it_is
from .normalise import Lora, Parts

Shape = tuple[int, ...]

ON_BIAS = ("diff_b",)
"""Parts that change a layer's bias; all others change its weight."""
_PLAIN = ("diff", "set_weight", "diff_b")
_LABELS = (
    ("lora_up", "LoRA"),
    ("hada_w1_a", "LoHa"),
    ("lokr_", "LoKr"),
    ("a1", "GLoRA"),
    ("oft_blocks", "OFT"),
    ("dora_scale", "DoRA"),
    ("diff$", "full difference"),
    ("diff_b", "bias"),
    ("set_weight", "replaced, whatever the strength"),
)
"""What a layer is counted as in the report, by the parts that it has."""
_NO_DELTA = ("alpha", "dora_scale", "rescale", "reshape_weight")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fit:
    """What of a LoRA a model can take."""

    lora: Lora
    """The whole LoRA."""
    layers: Mapping[str, Parts]
    """The layers and parts that fit, ready for the host's adapters."""
    unused: tuple[tuple[str, str], ...]
    """The file's other keys, each with the reason."""

    def report(self, strength: float) -> str:
        """Tell in a few lines what was used and what was not, every key accounted for."""
        total = sum(map(len, self.lora.keys.values())) + len(self.lora.unknown)
        lines = [f"{self.lora.name} at strength {strength:g}: {total - len(self.unused)} of {total} keys used, on "]
        lines[0] += f"{len(self.layers)} layers ({_kinds(self.layers)})."
        for reason, keys in _grouped(self.unused):
            lines.append(f"Not used: {len(keys)} keys, {reason}: {', '.join(_folded(keys))}.")
        return "\n".join([*lines, *self.lora.notes])


def fit(lora: Lora, shapes: Mapping[str, Shape], model: str) -> Fit:
    """Find what of a LoRA fits a model.

    Args:
        lora: the LoRA.
        shapes: the model's weights and biases, ``<layer>.weight`` and ``<layer>.bias``, under Wan's layer names.
        model: the model's name, for people.

    Raises:
        LoraError: nothing fits, or nothing of what it has for the model's blocks; the text says what the file is.
            Also where a number in it is not finite.
    """
    layers: dict[str, Parts] = {}
    unused = [(key, "which belong to no kind of LoRA that is known here") for key in lora.unknown]
    for layer, parts in lora.layers.items():
        reason = _misfit(layer, parts, shapes)
        if reason:
            unused += [(key, reason) for key in lora.keys[layer]]
            continue
        _check_finite(lora.name, layer, parts)
        layers[layer] = _shaped(layer, parts, shapes)
    in_blocks = [layer for layer in lora.layers if layer.startswith("blocks.")]
    if not layers or (in_blocks and not any(layer in layers for layer in in_blocks)):
        raise LoraError(f"{lora.name} does not fit {model}: {_why(lora, unused, shapes)}")
    return Fit(lora=lora, layers=layers, unused=tuple(unused))


def differences(trained: ModelConfig, model: ModelConfig) -> list[str]:
    """Tell, setting by setting, where a model is not what a LoRA was trained for."""
    own = ("name", "family", "chunk_latents", "shift", "fps", "boundary")  # these change no weight's meaning
    found = []
    for field in fields(ModelConfig):
        ours, theirs = getattr(trained, field.name), getattr(model, field.name)
        if field.name in own or ours == theirs:
            continue
        if field.name not in ("anchors", "audio") or ours is None or theirs is None:
            found.append(f"{field.name} {_shown(ours)} (this model: {_shown(theirs)})")
            continue
        for inner in fields(ours):
            mine, other = getattr(ours, inner.name), getattr(theirs, inner.name)
            if mine != other:
                found.append(f"{field.name}.{inner.name} {_shown(mine)} (this model: {_shown(other)})")
    return found


def _misfit(layer: str, parts: Parts, shapes: Mapping[str, Shape]) -> str:
    """Return why a layer does not fit, or an empty text."""
    weight, bias = shapes.get(f"{layer}.weight"), shapes.get(f"{layer}.bias")
    if weight is None:
        return _absent(layer, shapes)
    if all(part in _NO_DELTA for part in parts):
        return "which change nothing by themselves"
    if "diff_b" in parts and bias is None:
        return "a change of a bias that this model's layers do not have"
    if "diff_b" in parts and bias is not None and not _same(tuple(parts["diff_b"].shape), bias):
        return f"made for {tuple(parts['diff_b'].shape)} biases where this model has {bias}"
    target = tuple(int(n) for n in parts["reshape_weight"]) if "reshape_weight" in parts else weight
    made_for = next((shape for shape in _delta_shapes(parts, target) if not _same(shape, target)), None)
    if made_for is not None:
        return f"made for {_sizes(made_for)} weights where this model has {_sizes(target)}"
    return ""


def _delta_shapes(parts: Parts, weight: Shape) -> list[Shape]:
    """Return the shapes that a layer's parts were made for; a factored one tells rows and columns alone."""
    shapes: list[Shape] = [tuple(parts[name].shape) for name in ("diff", "set_weight") if name in parts]
    sizes = {name: tuple(t.shape) for name, t in parts.items()}
    if "lora_up.weight" in parts:
        up, down = sizes["lora_up.weight"], sizes["lora_down.weight"]
        kernel = math.prod(sizes.get("lora_mid.weight", (1, 1))[2:])
        inner = math.prod(up[1:]) == down[0]
        shapes.append((up[0], math.prod(down[1:]) * kernel) if inner else (up[0], -1))
    if "hada_w1_a" in parts:
        kernel = math.prod(sizes.get("hada_t1", (1, 1))[2:])
        rows = sizes["hada_w1_a"][1 if "hada_t1" in parts else 0]
        shapes.append((rows, sizes["hada_w1_b"][1] * kernel))
    if any(name.startswith("lokr_") for name in parts):
        shapes.append(_kronecker(sizes))
    if "a1.weight" in parts:
        b1, b2 = sizes["b1.weight"], sizes["b2.weight"]
        shapes.append((b1[0], b2[1]) if b1[1] == b2[0] else (b2[0], b1[1]))
    if "oft_blocks" in parts:
        *_, count, size, _ = sizes["oft_blocks"]
        shapes.append((count * size, math.prod(weight[1:])))
    return shapes


def _kronecker(sizes: Mapping[str, Shape]) -> Shape:
    rows, columns = 1, 1
    for factor in ("lokr_w1", "lokr_w2"):
        if factor in sizes:
            shape = sizes[factor]
        elif f"{factor}_a" in sizes:
            tucker = factor == "lokr_w2" and "lokr_t2" in sizes
            kernel = math.prod(sizes["lokr_t2"][2:]) if tucker else 1
            shape = (sizes[f"{factor}_a"][1 if tucker else 0], sizes[f"{factor}_b"][1] * kernel)
        else:
            return (-1, -1)  # one factor of the two is missing
        rows, columns = rows * shape[0], columns * math.prod(shape[1:])
    return rows, columns


def _same(made_for: Shape, weight: Shape) -> bool:
    """Compare up to sides of length 1, and by rows and columns where the kernel's sides are not known."""
    if [n for n in made_for if n != 1] == [n for n in weight if n != 1]:
        return True
    return len(made_for) == 2 and len(weight) > 2 and made_for == (weight[0], math.prod(weight[1:]))


def _shaped(layer: str, parts: Parts, shapes: Mapping[str, Shape]) -> Parts:
    """Give plain changes the very shape of what they change: a table may be stored without its leading 1."""
    end = {"diff_b": "bias"}
    return {
        part: tensor.reshape(shapes[f"{layer}.{end.get(part, 'weight')}"]) if part in _PLAIN else tensor
        for part, tensor in parts.items()
    }


def _check_finite(name: str, layer: str, parts: Parts) -> None:
    for part, tensor in parts.items():
        if not bool(torch.isfinite(tensor.float()).all()):
            raise LoraError(
                f"{name} holds infinite or undefined numbers in {layer} ({part}): its training diverged, and it would "
                "turn every video black. Use an earlier save of it."
            )


def _absent(layer: str, shapes: Mapping[str, Shape]) -> str:
    block = re.match(r"blocks\.(\d+)\.", layer)
    count = 1 + max((int(m[1]) for name in shapes if (m := re.match(r"blocks\.(\d+)\.", name))), default=-1)
    if block and int(block[1]) >= count:
        return f"for blocks after the {count} that this model has"
    if re.search(r"\.(k_img|v_img|norm_k_img)$|^img_emb\.", layer):
        return "for the CLIP image branch of Wan 2.1 image-to-video models, which this model does not have"
    if "audio" in layer:
        return "for an audio branch that this model does not have"
    if re.match(r"text_encoders?\.|lora_te\d?_|te\d?\.|text_model", layer):
        return "for a text encoder, which the host's own Load LoRA node can load"
    return "for layers that this model does not have"


def _why(lora: Lora, unused: Sequence[tuple[str, str]], shapes: Mapping[str, Shape]) -> str:
    foreign = what_it_is([key for key, _ in unused])
    if foreign:
        return f"{foreign}."
    reason = Counter(reason for _, reason in unused).most_common(1)[0][0]
    first = ", ".join(key for key, _ in unused[:3])
    if reason.startswith("made for"):
        return (
            f"its layers are {reason}. It belongs to a model of another size (14B: 5120 wide, 5B: 3072, 1.3B: 1536); "
            "load that model, or the LoRA's version for this one."
        )
    return f"none of its {len(unused)} keys finds its layer; they are {reason}. The first are {first}."


def _kinds(layers: Mapping[str, Parts]) -> str:
    counts = {
        label: sum(any(re.match(mark, part) for part in parts) for parts in layers.values()) for mark, label in _LABELS
    }
    return ", ".join(f"{count} {label}" for label, count in counts.items() if count)


def _grouped(unused: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = {}
    for key, reason in unused:
        groups.setdefault(reason, []).append(key)
    return list(groups.items())


def _folded(keys: Sequence[str]) -> list[str]:
    """Name keys that differ only in their block once, with the blocks' range and their count."""
    groups: dict[str, list[int]] = {}
    for key in keys:
        number = re.search(r"blocks[._](\d+)", key)
        pattern = key[: number.start(1)] + "*" + key[number.end(1) :] if number else key
        groups.setdefault(pattern, []).append(int(number[1]) if number else 0)
    return [
        pattern if "*" not in pattern else f"{pattern} (blocks {min(found)}-{max(found)}, {len(found)} keys)"
        for pattern, found in groups.items()
    ]


def _sizes(shape: Shape) -> str:
    return " x ".join("?" if n < 0 else str(n) for n in shape)


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
