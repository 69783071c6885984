"""Public audio branches, told by names and shapes, under our names. Source: peers.md, sections B1 to B3.

A file's own name is not looked at, nor is what stands before the names in it: the authors' files, single-file copies
and whole models that hold a branch all load. A branch loads whole or not at all.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import MULTITALK_FIRST, AudioConfig, ModelConfig
from ..errors import CheckpointError, ConfigError
from ..model.attention import torch_attention
from ..model.audio import AudioAttention, make_audio_embedding
from .detect import own_config
from .files import misfits, read_header, read_tensors, some
from .foreign import KINDS, Foreign, recognise
from .header import Header, Shapes
from .quantization import FLOAT8

_WINDOW = 8
_BRANCHES = "FantasyTalking, MultiTalk, InfiniteTalk, HuMo or Gloria"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AudioBranch:
    """An audio branch out of a file."""

    family: str
    """Who made it, as people call it."""
    config: AudioConfig
    weights: dict[str, Tensor]
    """By GloriaDiT's names; mapped from the file, but for float8, which is multiplied out to bfloat16."""
    dim: int
    """Width D of the tokens that it listens for."""
    num_layers: int
    """Blocks of the model that it was trained in."""
    fps: float | None
    """Frame rate that it was trained at; None is the video model's own."""
    num_left_out: int
    """Tensors of a video model in the same file, which are not used."""


@dataclass(frozen=True, slots=True)
class _Family:
    """How one maker spells a branch."""

    name: str
    mark: str
    """Regular expression for a name that no other family has."""
    names: tuple[tuple[str, str], ...]
    """Regular expressions for whole names, from the part on that is the maker's own, and our names for them."""
    configure: Callable[[Shapes], AudioConfig]
    """Reads the sizes off the shapes; raises KeyError where one is missing."""
    fps: float
    """Frame rate of the training."""


def _fantasytalking(shapes: Shapes) -> AudioConfig:
    dim, features = shapes["audio_embedding.proj.weight"]
    return AudioConfig(
        kind="wav2vec2-rows", projection="fantasytalking", feature_dim=features, dim=dim, every=1, kv_bias=False,
        output="shared",
    )  # fmt: skip


def _pooled(shapes: Shapes, first: str, rows: int) -> AudioConfig:
    hidden, features = shapes[f"audio_embedding.{first}.weight"]
    dim = shapes["audio_embedding.norm.weight"][0]
    return AudioConfig(
        kind="whisper-groups", projection="humo", feature_dim=features // rows, dim=dim, every=1, window=_WINDOW,
        tokens=shapes["audio_embedding.proj3.weight"][0] // dim, hidden=hidden, queries="own", own_norm=True,
        placement="sequential",
    )  # fmt: skip


def _multitalk(shapes: Shapes) -> AudioConfig:
    pooled = _pooled(shapes, "proj1", MULTITALK_FIRST)
    return replace(pooled, kind="wav2vec2-layers", projection="multitalk", fused=True)


def _humo(shapes: Shapes) -> AudioConfig:
    return replace(_pooled(shapes, "proj1", _WINDOW), query_norm=True, key_norm=True)


_LEAF = r"(weight|bias)"
_FAMILIES = (
    _Family(
        "FantasyTalking",
        r"cross_attn\.(?:processor\.)?[kv]_proj\.weight$",
        (
            (r"blocks\.(\d+)\.cross_attn\.(?:processor\.)?([kv])_proj\.weight", r"blocks.\1.audio_attn.\2.weight"),
            (r"(?:proj_model\.)?(proj\.weight|norm\.weight|norm\.bias)", r"audio_embedding.\1"),
        ),
        _fantasytalking,
        23.0,
    ),
    _Family(
        "HuMo",
        r"audio_cross_attn_wrapper\.|audio_proj_glob_",
        (
            (
                r"blocks\.(\d+)\.audio_cross_attn_wrapper\.audio_cross_attn\.(q|k|v|o|norm_q|norm_k)\." + _LEAF,
                r"blocks.\1.audio_attn.\2.\3",
            ),
            (r"blocks\.(\d+)\.audio_cross_attn_wrapper\.norm1_audio\." + _LEAF, r"blocks.\1.audio_attn.norm.\2"),
            (r"audio_proj\.audio_proj_glob_([123])\.layer\." + _LEAF, r"audio_embedding.proj\1.\2"),
            (r"audio_proj\.audio_proj_glob_norm\.layer\." + _LEAF, r"audio_embedding.norm.\1"),
        ),
        _humo,
        25.0,
    ),
    _Family(
        "MultiTalk or InfiniteTalk",
        r"audio_cross_attn\.(?:q_linear|kv_linear|proj)\.",
        (
            (r"blocks\.(\d+)\.audio_cross_attn\.q_linear\." + _LEAF, r"blocks.\1.audio_attn.q.\2"),
            (r"blocks\.(\d+)\.audio_cross_attn\.kv_linear\." + _LEAF, r"blocks.\1.audio_attn.kv.\2"),
            (r"blocks\.(\d+)\.audio_cross_attn\.proj\." + _LEAF, r"blocks.\1.audio_attn.o.\2"),
            (r"blocks\.(\d+)\.norm_x\." + _LEAF, r"blocks.\1.audio_attn.norm.\2"),
            (r"(?:multitalk_)?audio_proj\.(proj1|proj1_vf|proj2|proj3|norm)\." + _LEAF, r"audio_embedding.\1.\2"),
        ),
        _multitalk,
        25.0,
    ),
)
_GLORIA_NAMES = ((r"((?:audio_embedding|blocks\.\d+\.audio_attn)\..+)", r"\1"),)

_RELATIVES = (
    Foreign("Wan2.2 S2V", (r"casual_audio_encoder\.|audio_injector\.",), ""),
    Foreign("LongCat-Video-Avatar", (r"audio_cross_attn\.[qk]_norm\.|audio_modulation",), ""),
)
"""Branches that need another video model, and are not read."""

_VIDEO_MODEL = re.compile(
    r"(?:.*\.)?(?:(?:patch_embedding|text_embedding|time_embedding|time_projection|img_emb|head)\.|"
    r"blocks\.\d+\.(?:(?:self_attn|cross_attn|norm3|ffn)\.|modulation$)).*"
)
"""Names of a Wan video model, whatever stands before them."""
_SCALES = re.compile(r"(.+)\.(scale_weight|weight_scale|scale_input|input_scale)")
_MARKER = re.compile(r"(?:.*\.)?scaled_fp8")


def read(path: Path) -> AudioBranch:
    """Read an audio branch of FantasyTalking, MultiTalk, InfiniteTalk (one speaker), HuMo or Gloria.

    Args:
        path: a .safetensors, .ckpt, .pt, .pth or .bin file, or a folder of shards. Archives of Python objects are
            opened for plain tensors only.

    Raises:
        CheckpointError: the file cannot be read, is no audio branch that is known, lacks a tensor, or holds one that is
            not known; each is named.
    """
    header = read_header(path)
    if header.container == "gguf":
        raise CheckpointError(
            f"{path.name} is a GGUF, in which audio branches are not read; choose the .safetensors file of the same "
            "branch (the video model may be a GGUF)."
        )
    family, patterns = _family(header)
    renamed = {name: ours for name in header.tensors if (ours := _renamed(name, patterns))}
    left_out = _left_out(header, renamed, family)
    _refuse_doubles(renamed, path.name)
    shapes = {ours: header.tensors[name].shape for name, ours in renamed.items()}
    config = _configured(header, family, shapes)
    dim, layers = _sizes(header, shapes)
    _check_whole(shapes, config, dim, layers, f"{path.name} looks like an audio branch of {family}")
    return AudioBranch(
        family=family,
        config=config,
        weights=_opened(header, renamed),
        dim=dim,
        num_layers=layers,
        fps=next((known.fps for known in _FAMILIES if known.name == family), None),
        num_left_out=left_out,
    )


def joined(model: ModelConfig, branch: AudioBranch, strength: float = 1.0) -> ModelConfig:
    """Return a model's configuration with a branch in it, in place of the one that it may have, at its frame rate.

    Args:
        model: the video model.
        branch: from ``read``.
        strength: factor on what the branch adds.

    Raises:
        CheckpointError: the branch was made for another width or another number of blocks.
    """
    if (branch.dim, branch.num_layers) != (model.dim, model.num_layers):
        raise CheckpointError(
            f"This audio branch of {branch.family} was made for a model of width {branch.dim} with "
            f"{branch.num_layers} blocks; {model.name!r} has width {model.dim} and {model.num_layers} blocks. Choose "
            f"the video model that it was made for{' (a Wan 14B)' if branch.dim == 5120 else ''}, or another branch."
        )
    return replace(model, fps=branch.fps or model.fps, audio=replace(branch.config, strength=strength))


def _family(header: Header) -> tuple[str, tuple[tuple[str, str], ...]]:
    what, names = header.path.name, header.tensors
    relative = recognise(names, _RELATIVES)
    if relative:
        raise CheckpointError(
            f"{what} is an audio branch of {relative.what}, which needs its own video model and is not read here; "
            f"choose one of {_BRANCHES}."
        )
    for family in _FAMILIES:
        if any(re.search(family.mark, name) for name in names):
            return family.name, family.names
    if any(_renamed(name, _GLORIA_NAMES) for name in names):
        return "Gloria", _GLORIA_NAMES
    kind = recognise(names, KINDS)
    if kind:
        told = f"{what} is {kind.what}, not an audio branch"
    elif any(_VIDEO_MODEL.fullmatch(name) for name in names):
        told = f"{what} is a video model without an audio branch: load it with Load Gloria DiT"
    else:
        told = f"{what} is no audio branch that is known: its {len(names)} tensors are called {some(sorted(names))}"
    raise CheckpointError(f"{told}. Choose a file of {_BRANCHES}.")


def _renamed(name: str, patterns: tuple[tuple[str, str], ...]) -> str | None:
    """Return our name for one of a maker's, whatever stands before it; None where it is not a branch's."""
    for pattern, ours in patterns:
        inside_a_block = pattern.startswith("blocks")
        match = re.fullmatch(rf"((?:.*\.)?)({pattern})", name)
        if match and (inside_a_block or "blocks." not in match[1]):
            return re.sub(pattern, ours, match[2], count=1)
    return None


def _left_out(header: Header, renamed: Mapping[str, str], family: str) -> int:
    """Count the tensors of a video model in the file; raise where there are tensors of neither."""
    others = [name for name in header.tensors if name not in renamed and not _MARKER.fullmatch(name)]
    others = [name for name in others if not ((scale := _SCALES.fullmatch(name)) and f"{scale[1]}.weight" in renamed)]
    unknown = [name for name in others if not _VIDEO_MODEL.fullmatch(name)]
    if unknown:
        raise CheckpointError(
            f"{header.path.name} looks like an audio branch of {family}, but {len(unknown)} of its tensors are not "
            f"known in one ({some(sorted(unknown))}). It belongs to a variant that is not read: nothing was loaded."
        )
    return len(others)


def _refuse_doubles(renamed: Mapping[str, str], what: str) -> None:
    seen: dict[str, str] = {}
    for name, ours in renamed.items():
        if ours in seen:
            raise CheckpointError(
                f"{what} holds the same weight twice, as {seen[ours]!r} and as {name!r}; which one is meant cannot be "
                "told. Download the file again."
            )
        seen[ours] = name


def _configured(header: Header, family: str, shapes: Shapes) -> AudioConfig:
    what = header.path.name
    if family == "Gloria":
        own = own_config(header)
        if own is None or own.audio is None:
            raise CheckpointError(
                f"{what} is a Gloria audio branch that has lost the configuration in its header, as some converters "
                "drop it. Choose the file as Gloria saved it."
            )
        return own.audio
    configure = next(known.configure for known in _FAMILIES if known.name == family)
    try:
        return configure(shapes)
    except KeyError as error:
        raise CheckpointError(
            f"{what} looks like an audio branch of {family}, but lacks {error.args[0]!r} (our name) and "
            "perhaps more. Nothing was loaded: download the file again."
        ) from error
    except (ConfigError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{what} looks like an audio branch of {family}, but its shapes make no sense ({error}). Download it again."
        ) from error


def _sizes(header: Header, shapes: Shapes) -> tuple[int, int]:
    """Return width and number of blocks of the model that a branch was made for."""
    own = own_config(header)
    if own is not None and own.audio is not None:
        return own.dim, own.num_layers
    blocks = [int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")]
    rows = [shape[0] for name, shape in shapes.items() if re.fullmatch(r"blocks\.\d+\.audio_attn\.[qkv]\.weight", name)]
    if not rows or len(set(rows)) > 1:
        raise CheckpointError(
            f"The blocks of the audio branch in {header.path.name} have the widths {sorted(set(rows))}; they need one. "
            "Nothing was loaded: download the file again."
        )
    return rows[0], max(blocks) + 1


def _check_whole(shapes: Shapes, config: AudioConfig, dim: int, layers: int, what: str) -> None:
    """Raise where a weight is missing, unknown, or of another shape."""
    if layers > len(shapes):
        raise CheckpointError(f"{what}, but its blocks are counted up to {layers}. Download it again.")
    complaints = misfits(_wanted(config, dim, layers), shapes, whose="of it")
    if complaints:
        raise CheckpointError(f"{what}, but by our names {complaints}. Nothing was loaded: download the file again.")


def _wanted(config: AudioConfig, dim: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Return the name and the shape of every weight of a branch."""
    nowhere = {"device": "meta"}
    parts: list[tuple[str, nn.Module]] = [("audio_embedding", make_audio_embedding(config, nn, nowhere))]
    ears = AudioAttention(ModelConfig(dim=dim, num_heads=1, audio=config), torch_attention, nn, nowhere)
    parts += [(f"blocks.{index}.audio_attn", ears) for index in range(0, layers, config.every)]
    return {f"{at}.{name}": tuple(tensor.shape) for at, part in parts for name, tensor in part.state_dict().items()}


def _opened(header: Header, renamed: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the weights, mapped from the file; float8 is multiplied by its scale, to bfloat16."""
    marked = any(_MARKER.fullmatch(name) for name in header.tensors)
    scales = {f"{m[1]}.weight": n for n in header.tensors if (m := _SCALES.fullmatch(n)) and "input" not in m[2]}
    weights = {renamed[name]: tensor for name, tensor in read_tensors(header, tuple(renamed))}
    for name, ours in renamed.items():
        info = header.tensors[name]
        if not info.dtype.is_floating_point:
            raise CheckpointError(
                f"{header.path.name} stores {name!r} as {info.dtype}, a quantisation that is not read for audio "
                "branches; choose the fp16, bf16 or fp8 file."
            )
        if name in scales:
            ((_, scale),) = read_tensors(header, (scales[name],))
            scale = scale.float().reshape(-1, *[1] * (weights[ours].ndim - 1))
            weights[ours] = (weights[ours].float() * scale).bfloat16()
        elif info.dtype in FLOAT8:
            if marked:
                raise CheckpointError(
                    f"{header.path.name} says that its float8 weights have scales, and {name!r} has none. Download it "
                    "again."
                )
            weights[ours] = weights[ours].to(torch.bfloat16)
    return weights
