"""The host's side of a model: how it is described, and what of a CONDITIONING reaches the network.

What rides in a CONDITIONING (an option of each entry, in the latent space of the VAE) beside the host's own
``concat_latent_image``, ``concat_mask``, ``clip_vision_output`` and ``time_dim_concat``:

- ``gloria_anchors``: an ``AnchorSet``;
- ``gloria_audio``: ``AudioFeatures`` on the clock of the whole video;
- ``gloria_audio_start``: the latent frame of the video at which the sampled latent begins (0 where absent);
- ``gloria_prefix_noise``: the noise level of the latents that a mask holds at the start (0, clean, where absent). Who
  sets it has put the noise into them.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.supported_models
import torch
from torch import Tensor

from ...gloria_core.audio import branch_windows, silent_windows
from ...gloria_core.config import AudioConfig, ModelConfig
from ...gloria_core.errors import AudioError, ConfigError
from ...gloria_core.nano.codec import load_codec
from ...gloria_core.sampling.denoise import TIMESTEPS
from ...gloria_core.types import AnchorSet, AudioFeatures
from .network import HostDiT, tables
from .operations import SCALE
from .quant import WeightTypes

_LATENT_PIXELS_IN_A_TOKEN = 4
_WIDTHS_IN_A_TOKEN = 4 * 0.01 * 2**20 / 2222
"""The host's estimate of the memory that one token takes, in rows of D numbers: 0.01 MiB for each latent pixel and byte
of a number, at a width of 2222."""


_Place = tuple[torch.device, torch.dtype]

_LATENTS_KEPT = 32
"""Anchors whose normalised latents a model remembers: more than twice as many as a character can have."""


class CONDAnchors(comfy.conds.CONDConstant):
    """Anchors for the whole batch. Their size is told, so that the host's memory estimate counts their tokens."""

    def size(self) -> list[int]:
        """Return [1, 1, n] for n latent pixels."""
        return _anchor_size(self.cond)


def _anchor_size(anchors: AnchorSet) -> list[int]:
    return [1, 1, sum(a.latent.shape[-2] * a.latent.shape[-1] for a in anchors)]


class NanoLatent(comfy.latent_formats.LatentFormat):
    """The latent space of the nano codec: already of the size that the model wants."""

    latent_dimensions = 3

    def __init__(self) -> None:
        codec = load_codec()
        self.latent_channels = codec.channels
        # The codec is linear, so the mean colour of each block is exact: a preview costs one small product.
        colours = (codec.basis * codec.scale).unflatten(0, (3, -1)).mean(dim=1)  # (3, C)
        self.latent_rgb_factors = colours.T.tolist()
        self.latent_rgb_factors_bias = codec.mean.unflatten(0, (3, -1)).mean(dim=1).tolist()


_LATENT_FORMATS: Mapping[str, Callable[[], Any]] = {
    "nano": NanoLatent,
    "wan2.1": comfy.latent_formats.Wan21,
    "wan2.2": comfy.latent_formats.Wan22,
}


class GloriaModel(comfy.model_base.WAN21):
    """What of a CONDITIONING reaches the network, how latents are held clean, and how much memory a run takes."""

    weight_types: WeightTypes
    """What the weights are kept in, for a model that is made from this one."""
    mapped: frozenset[int] = frozenset()
    """Addresses of weights that are pages of a file until the host moves them."""

    def __init__(self, model_config: "GloriaSupport", device: torch.device | None = None) -> None:
        flow = comfy.model_base.ModelType.FLOW
        comfy.model_base.BaseModel.__init__(self, model_config, flow, device=device, unet_model=HostDiT)
        self.gloria = model_config.gloria
        model_config.tables = tables(self.diffusion_model)
        self.image_to_video = self.gloria.has_image_channels
        self.memory_usage_factor_conds = ("gloria_anchors", "gloria_audio")
        self._converted: list[tuple[AnchorSet, _Place, AnchorSet]] = []
        self._latents: dict[tuple[int, _Place], tuple[Tensor, Tensor]] = {}

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:  # noqa: ANN401 - the host's signature
        """Turn one CONDITIONING entry into the network's arguments; see the module's docstring for our keys."""
        out = super().extra_conds(**kwargs)
        anchors: AnchorSet | None = kwargs.get("gloria_anchors")
        if anchors is not None and len(anchors):
            out["gloria_anchors"] = CONDAnchors(self._in_model_space(anchors, kwargs["device"]))
        noise: Tensor = kwargs["noise"]
        sound = self._windows(kwargs.get("gloria_audio"), kwargs.get("gloria_audio_start", 0), noise)
        if sound is not None:
            out["gloria_audio"] = comfy.conds.CONDRegular(sound)
        mask: Tensor | None = kwargs.get("denoise_mask")
        if mask is not None and self._holds:
            prefix = _num_prefix(mask)
            out["gloria_prefix"] = comfy.conds.CONDConstant(prefix)
            if kwargs.get("gloria_prefix_noise", 0.0):
                out["gloria_prefix_timestep"] = comfy.conds.CONDConstant(TIMESTEPS * kwargs["gloria_prefix_noise"])
            if not bool((mask[:, :, prefix:] == 1).all()):
                out["denoise_mask"] = comfy.conds.CONDRegular(mask)
        return out

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, list[int]]:  # noqa: ANN401 - the host's signature
        """Tell the sizes of anchors before the model is loaded, for the host's memory estimate."""
        out = super().extra_conds_shapes(**kwargs)
        anchors: AnchorSet | None = kwargs.get("gloria_anchors")
        if anchors is not None and len(anchors):
            out["gloria_anchors"] = _anchor_size(anchors)
        return out

    def memory_required(
        self, input_shape: list[int], cond_shapes: Mapping[str, list[list[int]]] | None = None
    ) -> float:
        """Estimate the bytes of a forward pass, with the tokens of anchors and sound.

        Every row of the batch carries the anchors. A model that hears gets sound always, if only silence.
        """
        rows = input_shape[0]
        counted = {}
        most = max((size[2] for size in (cond_shapes or {}).get("gloria_anchors", [])), default=0)
        if most:
            counted["gloria_anchors"] = [[rows, 1, most]]
            if self.gloria.anchors.mode == "cached":  # each block's keys and values stay in memory
                kept = most * self.gloria.num_layers * 2 / _WIDTHS_IN_A_TOKEN
                counted["gloria_anchors"].append([1, 1, round(kept)])
        if self.gloria.audio is not None and len(input_shape) == 5:
            counted["gloria_audio"] = [[rows, 1, round(input_shape[2] * self._pixels_of_a_window(self.gloria.audio))]]
        return float(super().memory_required(input_shape, cond_shapes=counted))

    def _pixels_of_a_window(self, hears: AudioConfig) -> float:
        """Return the latent pixels that take as much memory as the sound of one latent frame.

        That is its features, their tokens twice, and a block's keys and values.
        """
        num_rows = silent_windows(hears, self.gloria.fps, 0, 1).shape[-2]
        num_tokens = hears.tokens or num_rows
        numbers = num_rows * hears.window_dim + 2 * num_tokens * (hears.dim + self.gloria.dim)
        return _LATENT_PIXELS_IN_A_TOKEN * numbers / self.gloria.dim / _WIDTHS_IN_A_TOKEN

    def process_timestep(
        self,
        timestep: Tensor,
        x: Tensor,
        denoise_mask: Tensor | None = None,
        **_kwargs: Any,  # noqa: ANN401
    ) -> Tensor:
        """Give each latent frame (B, T) its own timestep where a mask holds a part of it, as Wan 2.2's 5B does."""
        if denoise_mask is None:
            return timestep
        held = denoise_mask.mean(dim=(1, 3, 4))  # (B, T)
        return held * timestep.view(-1, 1)

    def scale_latent_inpaint(self, *, latent_image: Tensor, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Return what stands where a mask holds the latent: itself, clean, where the model was trained so.

        The other models were trained with the image channels for that; to them a held latent is noised, as it is in
        the host's own Wan 2.1.
        """
        if self._holds:
            return latent_image
        noised: Tensor = super().scale_latent_inpaint(latent_image=latent_image, **kwargs)
        return noised

    @property
    def _holds(self) -> bool:
        return self.gloria.prefix == "held"

    def _windows(self, audio: AudioFeatures | None, start: int, noise: Tensor) -> Tensor | None:
        """Return windows (1, T, W, A); zeros, the trained sign for "no sound", where a hearing model gets none."""
        hears = self.gloria.audio
        if hears is None:
            if audio is not None:
                raise AudioError(
                    f"The model {self.gloria.name!r} has no audio branch: take the audio off its conditioning."
                )
            return None
        frames = noise.shape[2]
        if audio is None:
            return silent_windows(hears, self.gloria.fps, start, frames).to(noise).unsqueeze(0)
        return branch_windows(hears, audio, start, frames).unsqueeze(0)

    def _in_model_space(self, anchors: AnchorSet, device: torch.device) -> AnchorSet:
        """Normalise anchors for the network.

        The same set gives the same object, by which the host knows that two prompts may share a pass. The same latent
        gives the same latent, by which a cache knows an anchor again whatever set it stands in.
        """
        place = (device, self.manual_cast_dtype or self.get_dtype())
        for source, known, converted in self._converted:
            if source is anchors and known == place:
                return converted
        converted = AnchorSet(tuple(replace(a, latent=self._latent_in_model_space(a.latent, place)) for a in anchors))
        self._converted = [*self._converted[-3:], (anchors, place, converted)]
        return converted

    def _latent_in_model_space(self, latent: Tensor, place: _Place) -> Tensor:
        key = (id(latent), place)
        kept = self._latents.pop(key, None)  # and in again at the end, so that the one unused for longest stands first
        self._latents[key] = kept or (latent, self.process_latent_in(latent).to(*place))
        if len(self._latents) > _LATENTS_KEPT:
            del self._latents[next(iter(self._latents))]
        return self._latents[key][1]


def _num_prefix(mask: Tensor) -> int:
    """Count the leading latent frames that a mask (B, C, T, h, w) holds wholly, leaving at least one to generate."""
    held = (mask == 0).all(dim=4).all(dim=3).all(dim=1).all(dim=0)  # (T,)
    return min(int(held.long().cumprod(0).sum()), mask.shape[2] - 1)


class GloriaSupport(comfy.supported_models.WAN21_T2V):
    """The host's description of a model family, filled from our configuration instead of from detection."""

    supported_inference_dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float16, torch.float32)

    def __init__(self, gloria: ModelConfig) -> None:
        if gloria.codec not in _LATENT_FORMATS:
            known = ", ".join(_LATENT_FORMATS)
            raise ConfigError(f"The model's codec is {gloria.codec!r}; this pack knows: {known}. A newer Gloria may.")
        self.latent_format = _LATENT_FORMATS[gloria.codec]  # the host's constructor calls it
        self.gloria = gloria
        self.tables: tuple[str, ...] = ()
        super().__init__({"image_model": "wan2.1", "dim": gloria.dim, "gloria": gloria})
        self.sampling_settings["shift"] = gloria.shift  # until a ModelSamplingSD3 node sets another
        if gloria.codec == "nano":
            self.supported_inference_dtypes = (torch.float32,)  # a few megabytes: nothing to gain from halves

    def get_model(
        self, state_dict: Mapping[str, Tensor], prefix: str = "", device: torch.device | None = None
    ) -> GloriaModel:
        """Build the model, without weights; the host's signature."""
        return GloriaModel(self, device=device)

    def process_unet_state_dict_for_saving(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give tables the names of weights files again, say where matrices have scales, and put the host's prefix."""
        named = dict(state_dict)
        for table in self.tables:
            named[table] = named.pop(f"{table}.weight")
        scaled = next((name for name in named if name.endswith(f".{SCALE}")), None)
        if scaled is not None:
            stored = named[scaled.removesuffix(SCALE) + "weight"].dtype
            named["scaled_fp8"] = torch.zeros(0, dtype=stored)  # the sign by which loaders know the format
        saved: dict[str, Tensor] = super().process_unet_state_dict_for_saving(named)
        return saved
