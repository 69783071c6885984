"""A Wan pipeline in Diffusers' layout as the parts of a render.

transformer/     config.json and .safetensors, one file or in parts
transformer_2/   the second expert of Wan 2.2 A14B
vae/             AutoencoderKLWan
text_encoder/    UMT5EncoderModel
tokenizer/
scheduler/       scheduler_config.json, for the shift
model_index.json for the boundary of two experts
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import inspect, load_dit, open_weights, read_checkpoint, read_header, read_tensors
from ..errors import CheckpointError, ConfigError
from ..model import AnchorCache, GloriaDiT
from ..runs.digest import digest_of, digest_of_weights
from ..runs.folder import read_json
from ..runs.ingredients import ModelPart
from .experts import ExpertPair, PairCache
from .job import ModelSource
from .keep import Keep
from .kit import Kit, Network
from .wan_text import WanTexts
from .wan_vae import WanVae

_FIRST, _SECOND = "transformer", "transformer_2"
_NEEDED = (_FIRST, "vae", "text_encoder", "tokenizer")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_KEPT = "encoded"
"""Folder in the run where encoded texts and pictures are kept."""


def pipeline_kit(source: ModelSource, boundary: float, run: Path, device: torch.device, *, writes: bool) -> Kit:
    """Return the parts of a render from a pipeline's folder; its transformers are loaded later.

    Args:
        source: the folder, and how its weights are used.
        boundary: noise level at which the second expert takes over; 0 takes the pipeline's own.
        run: the run's folder, where encoded texts and pictures are kept.
        device: where everything runs.
        writes: whether new ones are written there.

    Raises:
        CheckpointError: a part of the pipeline is missing, cut, or of no kind that is known.
        ConfigError: a package for it is missing.
    """
    folder = Path(source.diffusers)
    missing = [name for name in _NEEDED if not (folder / name).is_dir()]
    if missing:
        raise CheckpointError(
            f"The folder {folder} lacks {', '.join(missing)}; a pipeline in Diffusers' layout has the folders "
            f"{', '.join(_NEEDED)}."
        )
    dtype = _dtype(source.dtype, device)
    names = [name for name in (_FIRST, _SECOND) if (folder / name).is_dir()]
    parts = tuple(_part(folder / name, dtype) for name in names)
    vae, config = WanVae(folder, device), parts[0].config
    if vae.channels != config.out_channels:
        raise ConfigError(
            f"The VAE in {folder} makes latents of {vae.channels} channels; its transformer works with "
            f"{config.out_channels}: the folder holds parts of two pipelines."
        )
    keep, weights = Keep(run / _KEPT, writes=writes), _digest(folder / "vae")
    own = _own_boundary(folder) or config.boundary or 0.875
    pair = (boundary or own) if len(parts) == 2 else None

    def encode(frames: Tensor) -> Tensor:
        return keep.made(digest_of("pictures", weights, frames), lambda: vae.encode(frames))

    def network() -> Network:
        experts = [_loaded(folder / name, part, dtype) for name, part in zip(names, parts, strict=True)]
        if pair is None:
            return Network(experts[0].to(device), AnchorCache())
        return Network(ExpertPair(experts[0], experts[1], pair, device), PairCache())

    return Kit(
        parts=parts,
        boundary=pair,
        shift=_own_shift(folder) or config.shift,
        stride=vae.stride,
        device=device,
        dtype=dtype,
        texts=WanTexts(folder, _digest(folder / "text_encoder"), keep, device, dtype),
        encode=encode,
        vae=weights,
        decoder=vae.decoder(),
        network=network,
    )


def _part(folder: Path, dtype: torch.dtype) -> ModelPart:
    """Return what a transformer is, from its header and pieces of its weights."""
    inspection = inspect(folder)
    digest = digest_of_weights(open_weights(inspection).items())
    config = replace(inspection.config, name=f"{folder.parent.name}/{folder.name}")
    return ModelPart(config=config, weights=digest, changes=[str(dtype)])


def _loaded(folder: Path, part: ModelPart, dtype: torch.dtype) -> GloriaDiT:
    weights, _ = read_checkpoint(folder)
    return load_dit(weights, part.config, dtype=dtype)


def _digest(folder: Path) -> str:
    """Return the digest of the weights in a folder."""
    header = read_header(folder)
    return digest_of_weights(read_tensors(header, tuple(header.tensors)))


def _dtype(name: str, device: torch.device) -> torch.dtype:
    return _DTYPES[("bf16" if device.type == "cuda" else "fp32") if name == "auto" else name]


def _own_shift(folder: Path) -> float | None:
    told = read_json(folder / "scheduler" / "scheduler_config.json")
    return _number(told.get("flow_shift", told.get("shift")))


def _own_boundary(folder: Path) -> float | None:
    return _number(read_json(folder / "model_index.json").get("boundary_ratio"))


def _number(value: Any) -> float | None:  # noqa: ANN401 - parsed JSON
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None
