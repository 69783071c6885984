"""A Wan pipeline in Diffusers' layout as the parts of a render.

transformer/     config.json and .safetensors, one file or in parts
transformer_2/   the second expert of Wan 2.2 A14B
vae/             AutoencoderKLWan
text_encoder/    UMT5EncoderModel
tokenizer/
scheduler/       scheduler_config.json, for the shift
model_index.json for the boundary of two experts
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ..checkpoint import inspect, load_dit, model_shapes, open_weights, read_checkpoint, read_header, read_tensors
from ..config import ModelConfig
from ..errors import CheckpointError, ConfigError, LoraError
from ..lora import Fit, check_mergeable, differences, fit, merged, normalise, read_lora
from ..model import AnchorCache, GloriaDiT
from ..runs.digest import digest_of, digest_of_weights
from ..runs.folder import read_json
from ..runs.ingredients import ModelPart
from .experts import ExpertPair, PairCache
from .job import LoraSource, ModelSource
from .keep import Keep
from .kit import Kit, Network
from .wan_text import WanTexts
from .wan_vae import WanVae

_log = logging.getLogger(__name__)

_FIRST, _SECOND = "transformer", "transformer_2"
_NEEDED = (_FIRST, "vae", "text_encoder", "tokenizer")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_LEAVES = (".weight", ".bias")
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
    experts = tuple(_Expert.of(folder / name, dtype, _loras(source.loras, name, names)) for name in names)
    parts = tuple(expert.part for expert in experts)
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
        first, *others = (expert.loaded(dtype) for expert in experts)
        if pair is None:
            return Network(first.to(device), AnchorCache())
        return Network(ExpertPair(first, others[0], pair, device), PairCache())

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


@dataclass(frozen=True, slots=True, eq=False)
class _Expert:
    """A transformer that is not loaded yet."""

    folder: Path
    part: ModelPart
    loras: tuple[tuple[Fit, float], ...]
    """Those that fit, each with its strength."""

    @classmethod
    def of(cls, folder: Path, dtype: torch.dtype, loras: Sequence[LoraSource]) -> Self:
        """Read what a transformer is, from its header and pieces of its weights, and how LoRAs fit it."""
        inspection = inspect(folder)
        config = replace(inspection.config, name=f"{folder.parent.name}/{folder.name}")
        fits = tuple((_fitted(lora, config), lora.strength) for lora in loras)
        changes: list[Any] = [str(dtype)]
        changes += [[digest_of_weights(found.lora.state_dict().items()), strength] for found, strength in fits]
        weights = digest_of_weights(open_weights(inspection).items())
        return cls(folder, ModelPart(config=config, weights=weights, changes=changes), fits)

    def loaded(self, dtype: torch.dtype) -> GloriaDiT:
        """Load it, its LoRAs worked in."""
        weights, _ = read_checkpoint(self.folder)
        for found, strength in self.loras:
            weights = merged(weights, found, strength, dtype)
        return load_dit(weights, self.part.config, dtype=dtype)


def _loras(loras: Sequence[LoraSource], name: str, names: Sequence[str]) -> tuple[LoraSource, ...]:
    """Return those of a transformer; ConfigError where one is for an expert that there is not."""
    if len(names) == 1 and any(lora.on != "both" for lora in loras):
        raise ConfigError("A LoRA is for one of two experts (model.loras.on), and the pipeline has one transformer.")
    own = "high" if name == _FIRST else "low"
    return tuple(lora for lora in loras if lora.on in ("both", own))


def _fitted(source: LoraSource, config: ModelConfig) -> Fit:
    """Return a LoRA fitted to a model; LoraError where it does not fit, or was trained for other settings."""
    shapes = {name if name.endswith(_LEAVES) else f"{name}.weight": s for name, s in model_shapes(config).items()}
    lora = normalise(read_lora(Path(source.file)), [name.removesuffix(".weight") for name in shapes])
    if lora.config is not None:
        told = [each for each in differences(lora.config, config) if each.startswith(("anchors", "audio"))]
        if told:
            raise LoraError(
                f"{lora.name} was trained for other settings ({'; '.join(told)}), which a render without ComfyUI does "
                "not take over: render it inside ComfyUI."
            )
    found = fit(lora, shapes, f"the model {config.name!r}")
    check_mergeable(found)
    if found.unused:
        _log.warning("%s", found.report(source.strength))
    return found


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
