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
_KINDS = ("lora_", "hada_", "lokr_", "[ab][12]", "oft_")
"""How the parts of each kind of factored change begin."""
_BLOCK = re.compile(r"(blocks[._])(\d+)")
_CORES = ("lora_mid.weight", "hada_t1", "hada_t2", "lokr_t2")
"""Middle factors of kernels in Tucker form."""
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
        lines = [
            f"{self.lora.name} at strength {strength:g}: {total - len(self.unused)} of {total} keys used, on "
            f"{len(self.layers)} layers ({_kinds(self.layers)})."
        ]
        for reason, keys in _grouped(self.unused):
            lines.append(
                f"Not used: {len(keys)} {'keys' if len(keys) > 1 else 'key'}, {reason}: {', '.join(_folded(keys))}."
            )
        return "\n".join([*lines, *self.lora.notes])


def fit(lora: Lora, shapes: Mapping[str, Shape], model: str) -> Fit:
    """Find what of a LoRA fits a model; a layer is used whole or not at all.

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
        raise LoraError(f"{lora.name} does not fit {model}: {_why(unused)}")
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
    unusual = _unusual(parts)
    if unusual:
        return unusual
    if "diff_b" in parts and bias is None:
        return "a change of a bias that this model's layers do not have"
    if "diff_b" in parts and bias is not None and not _same(tuple(parts["diff_b"].shape), bias):
        return f"made for {tuple(parts['diff_b'].shape)} biases where this model has {bias}"
    made_for = next((shape for shape in _delta_shapes(parts, weight) if not _same(shape, weight)), None)
    if made_for is not None:
        return f"made for {_sizes(made_for)} weights where this model has {_sizes(weight)}"
    if "dora_scale" in parts and parts["dora_scale"].numel() not in weight[:2]:
        return f"with {parts['dora_scale'].numel()} lengths for {_sizes(weight)} weights"
    return ""


def _unusual(parts: Parts) -> str:
    """Return what of a layer the host's adapters would leave out or stumble over, or an empty text."""
    kinds = sum(any(re.match(mark, part) for part in parts) for mark in _KINDS)
    if kinds > 1:
        return "two kinds of LoRA at once for one layer"
    if not kinds and "dora_scale" in parts:
        return "learned lengths without the matrices that they belong to"
    if any(parts[core].ndim != 4 for core in _CORES if core in parts):
        return "with a core for kernels that are not flat, which the host's adapters cannot apply"
    return ""


def _delta_shapes(parts: Parts, weight: Shape) -> list[Shape]:
    """Return the shapes that a layer's parts were made for; a factored one tells rows and columns alone."""
    shapes: list[Shape] = [tuple(parts[name].shape) for name in ("diff", "set_weight") if name in parts]
    if "reshape_weight" in parts:  # a wish to widen the layer; GloriaDiT's layers are as wide as its configuration says
        shapes.append(tuple(int(n) for n in parts["reshape_weight"].flatten()))
    sizes = {name: tuple(t.shape) for name, t in parts.items()}
    if "lora_up.weight" in parts:
        up, down = sizes["lora_up.weight"], sizes["lora_down.weight"]
        kernel = math.prod(sizes.get("lora_mid.weight", (1, 1))[2:])
        shapes.append(_product((up[0], math.prod(up[1:])), (down[0], math.prod(down[1:]) * kernel)))
    if "hada_w1_a" in parts:
        shapes += [_pair(sizes, f"hada_w{i}", f"hada_t{i}") for i in (1, 2)]
    if any(name.startswith("lokr_") for name in parts):
        first, second = (_pair(sizes, f"lokr_w{i}", f"lokr_t{i}") for i in (1, 2))
        shapes.append((first[0] * second[0], math.prod(first[1:]) * math.prod(second[1:])))
    if "a1.weight" in parts:
        a1, a2, b1, b2 = (sizes[f"{name}.weight"] for name in ("a1", "a2", "b1", "b2"))
        newer = b1[1] == b2[0]
        square = _product(a1, a2) if newer else _product(a2, a1)
        columns = math.prod(weight[1:])
        shapes.append((_product(b1, b2) if newer else _product(b2, b1)) if square == (columns, columns) else (-1, -1))
    if "oft_blocks" in parts:
        *_, count, size, other = sizes["oft_blocks"]
        shapes.append((count * size if size == other else -1, math.prod(weight[1:])))
    return shapes


def _product(a: Shape, b: Shape) -> Shape:
    """Return the shape of a matrix product; -1 columns where there is none."""
    return a[0], b[1] if a[1] == b[0] else -1


def _pair(sizes: Mapping[str, Shape], name: str, core: str) -> Shape:
    """Return the shape of a factor that is given whole, as two matrices, or in Tucker form; -1 where it is missing."""
    if name in sizes:
        return sizes[name]
    if f"{name}_a" not in sizes:
        return -1, 1
    a, b = sizes[f"{name}_a"], sizes[f"{name}_b"]
    return (a[1], b[1] * math.prod(sizes[core][2:])) if core in sizes else _product(a, b)


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
        wide = tensor if tensor.dtype.itemsize > 1 else tensor.float()  # float8 cannot be summed
        if not math.isfinite(float(wide.sum(dtype=torch.float32))):  # one wrong number spoils the sum
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
    if layer.endswith(".modulation"):
        return "for modulation tables, which can be changed only in a model of Load Gloria DiT"
    if "audio" in layer:
        return "for an audio branch that this model does not have"
    if re.match(r"text_encoders?\.|lora_te\d?_|te\d?\.|text_model", layer):
        return "for a text encoder, which the host's own Load LoRA node can load"
    return "for layers that this model does not have"


def _why(unused: Sequence[tuple[str, str]]) -> str:
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
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(_BLOCK.sub(r"\1*", key), []).append(key)
    return [found[0] if len(found) == 1 else f"{pattern} ({_range(found)})" for pattern, found in groups.items()]


def _range(keys: Sequence[str]) -> str:
    blocks = [int(found[2]) for key in keys if (found := _BLOCK.search(key))]
    return f"blocks {min(blocks)}-{max(blocks)}, {len(keys)} keys"


def _sizes(shape: Shape) -> str:
    return " x ".join("?" if n < 0 else str(n) for n in shape)


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
