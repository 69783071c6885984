"""A GloriaDiT as the host's own MODEL, so that stock samplers, LoRA loaders, offload and patches work on it.

What rides in a CONDITIONING (an option of each entry, in the latent space of the VAE):

- ``gloria_anchors``: an ``AnchorSet``;
- ``gloria_audio``: ``AudioFeatures`` on the clock of the whole video;
- ``gloria_audio_start``: the latent frame of the video at which the sampled latent begins (0 where absent).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import comfy.utils
import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor

from ...gloria_core.audio import windows
from ...gloria_core.config import ModelConfig
from ...gloria_core.errors import AudioError, CheckpointError, ConfigError
from ...gloria_core.model import AnchorCache, GloriaDiT
from ...gloria_core.nano.codec import load_codec
from ...gloria_core.types import AnchorSet, AudioFeatures
from .attention import host_attention

CACHE = "gloria_cache"
"""Where a run's AnchorCache stands in the transformer options."""

_log = logging.getLogger(__name__)


class HostDiT(GloriaDiT):
    """GloriaDiT with the host's calling convention and its wrappers around the forward pass."""

    def __init__(
        self,
        gloria: ModelConfig,
        *,
        operations: Any,  # noqa: ANN401 - a namespace of layers, chosen by the host
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        **_detected: Any,  # noqa: ANN401 - the host passes all of its detected configuration
    ) -> None:
        super().__init__(gloria, operations=operations, attention=host_attention, device=device, dtype=dtype)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        clip_fea: Tensor | None = None,
        time_dim_concat: Tensor | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,  # noqa: ANN401 - whatever ``GloriaModel.extra_conds`` and other packs put there
    ) -> Tensor:
        """Run the network inside the wrappers that other nodes have put around it."""
        options = transformer_options or {}
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        executor = WrapperExecutor.new_class_executor(self._inner_forward, self, wrappers)
        return executor.execute(x, timestep, context, clip_fea, time_dim_concat, options, **kwargs)

    def _inner_forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        clip_fea: Tensor | None,
        time_dim_concat: Tensor | None,
        transformer_options: dict[str, Any],
        **given: Any,  # noqa: ANN401
    ) -> Tensor:
        return super().forward(
            x,
            timestep,
            context,
            clip_fea,
            time_dim_concat,
            transformer_options,
            anchors=given.get("gloria_anchors"),
            num_prefix=given.get("gloria_prefix", 0),
            audio=given.get("gloria_audio"),
            cache=transformer_options.get(CACHE),
        )


class CONDAnchors(comfy.conds.CONDConstant):
    """Anchors for the whole batch. Their size is told, so that the host's memory estimate counts their tokens."""

    def __init__(self, cond: AnchorSet, weight: float = 1.0) -> None:
        super().__init__(cond)
        self.weight = weight

    def _copy_with(self, cond: AnchorSet) -> "CONDAnchors":
        return type(self)(cond, self.weight)

    def size(self) -> list[int]:
        """Return [1, 1, n] for n latent pixels' worth of memory."""
        return _anchor_size(self.cond, self.weight)


def _anchor_size(anchors: AnchorSet, weight: float) -> list[int]:
    return [1, 1, round(weight * sum(a.latent.shape[-2] * a.latent.shape[-1] for a in anchors))]


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
    """The host's side of a model: what of a CONDITIONING reaches the network, and how latents are held clean."""

    def __init__(self, model_config: "GloriaSupport", device: torch.device | None = None) -> None:
        flow = comfy.model_base.ModelType.FLOW
        comfy.model_base.BaseModel.__init__(self, model_config, flow, device=device, unet_model=HostDiT)
        self.gloria = model_config.gloria
        self.image_to_video = self.gloria.has_image_channels
        self.memory_usage_factor_conds = ("gloria_anchors",)
        # In the cached mode an anchor's keys and values stay in memory. Per latent pixel they take
        # layers * 2 * D / 4 numbers; the host's estimate for activations is 0.01 MiB * D / 2222 numbers of that size.
        kept = self.gloria.num_layers * 2 * 2222 / (4 * 0.01 * 2**20) if self.gloria.anchors.mode == "cached" else 0.0
        self._anchor_weight = 1.0 + kept
        self._converted: list[tuple[AnchorSet, AnchorSet]] = []

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:  # noqa: ANN401 - the host's signature
        """Turn one CONDITIONING entry into the network's arguments; see the module's docstring for our keys."""
        out = super().extra_conds(**kwargs)
        anchors: AnchorSet | None = kwargs.get("gloria_anchors")
        if anchors is not None and len(anchors):
            out["gloria_anchors"] = CONDAnchors(self._in_model_space(anchors, kwargs["device"]), self._anchor_weight)
        noise: Tensor = kwargs["noise"]
        sound = self._windows(kwargs.get("gloria_audio"), kwargs.get("gloria_audio_start", 0), noise)
        if sound is not None:
            out["gloria_audio"] = comfy.conds.CONDRegular(sound)
        mask: Tensor | None = kwargs.get("denoise_mask")
        if mask is not None:
            prefix = _num_prefix(mask)
            out["gloria_prefix"] = comfy.conds.CONDConstant(prefix)
            if not bool((mask[:, :, prefix:] == 1).all()):
                out["denoise_mask"] = comfy.conds.CONDRegular(mask)
        return out

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, list[int]]:  # noqa: ANN401 - the host's signature
        """Tell the sizes of anchors before the model is loaded, for the host's memory estimate."""
        out = super().extra_conds_shapes(**kwargs)
        anchors: AnchorSet | None = kwargs.get("gloria_anchors")
        if anchors is not None and len(anchors):
            out["gloria_anchors"] = _anchor_size(anchors, self._anchor_weight)
        return out

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

    def scale_latent_inpaint(self, *, latent_image: Tensor, **_kwargs: Any) -> Tensor:  # noqa: ANN401
        """Return held latents clean: the model was trained to see its prefix without noise."""
        return latent_image

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
            return noise.new_zeros(1, frames, hears.window, hears.feature_dim)
        if audio.frames.shape[1] != hears.feature_dim:
            raise AudioError(
                f"The sound was encoded to {audio.frames.shape[1]} numbers a frame; the model {self.gloria.name!r} "
                "hears "
                f"{hears.feature_dim} ({hears.kind}): connect the model to the Audio Encoder, with a wav2vec2 "
                "encoder "
                "where the model needs one."
            )
        return windows(audio, start, frames).unsqueeze(0)

    def _in_model_space(self, anchors: AnchorSet, device: torch.device) -> AnchorSet:
        """Normalise anchors for the network. The same set gives the same object, by which a cache knows it again."""
        for source, converted in self._converted:
            if source is anchors:
                return converted
        dtype = self.manual_cast_dtype or self.get_dtype()
        converted = AnchorSet(
            tuple(replace(a, latent=self.process_latent_in(a.latent).to(device, dtype)) for a in anchors)
        )
        self._converted = [*self._converted[-3:], (anchors, converted)]
        return converted


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
        super().__init__({"image_model": "wan2.1", "dim": gloria.dim, "gloria": gloria})
        self.sampling_settings["shift"] = gloria.shift  # until a ModelSamplingSD3 node sets another
        if gloria.codec == "nano":
            self.supported_inference_dtypes = (torch.float32,)  # a few megabytes: nothing to gain from halves

    def get_model(
        self, state_dict: Mapping[str, Tensor], prefix: str = "", device: torch.device | None = None
    ) -> GloriaModel:
        """Build the model, without weights; the host's signature."""
        return GloriaModel(self, device=device)


def build_patcher(state_dict: Mapping[str, Tensor], config: ModelConfig) -> comfy.model_patcher.ModelPatcher:
    """Make the host's MODEL from weights.

    Args:
        state_dict: the network's weights under Wan's names, without a prefix.
        config: its architecture.

    Returns:
        A ModelPatcher whose weights are loaded and which gives every sampling run a fresh anchor cache.

    Raises:
        CheckpointError: weights are missing or left over, or one has the wrong shape; each is named.
        ConfigError: the model works in a latent space that this pack does not know.
    """
    support = GloriaSupport(config)
    device = comfy.model_management.get_torch_device()
    dtypes = list(support.supported_inference_dtypes)
    weight_dtype = comfy.utils.weight_dtype(state_dict)
    parameters = comfy.utils.calculate_parameters(state_dict)
    dtype = comfy.model_management.unet_dtype(
        model_params=parameters, supported_dtypes=dtypes, weight_dtype=weight_dtype
    )
    support.set_inference_dtype(dtype, comfy.model_management.unet_manual_cast(dtype, device, dtypes))
    offload = comfy.model_management.unet_offload_device()
    model = support.get_model(state_dict).to(offload)
    _load_strictly(model.diffusion_model, state_dict, config.name)
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=offload)
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "gloria", with_run_cache)
    return patcher


def _load_strictly(network: torch.nn.Module, state_dict: Mapping[str, Tensor], name: str) -> None:
    try:
        missing, unexpected = network.load_state_dict(dict(state_dict), strict=False)
    except RuntimeError as error:  # torch's way to say that shapes differ; it names every tensor
        raise CheckpointError(f"The weights do not fit the model {name!r}: {error}") from error
    if missing or unexpected:
        parts = [_named("missing", missing), _named("not known to the model", unexpected)]
        raise CheckpointError(f"The weights do not fit the model {name!r}: {'; '.join(p for p in parts if p)}.")


def _named(what: str, keys: list[str]) -> str:
    shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
    return f"{len(keys)} {what} ({shown})" if keys else ""


def with_run_cache(executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - the host's signature
    """Lend a sampling run an anchor cache, unless the caller brought one that lives longer (the long sampler does)."""
    guider = executor.class_obj
    options = guider.model_options.setdefault("transformer_options", {})
    if CACHE in options:
        return executor(*args, **kwargs)
    options[CACHE] = AnchorCache()
    try:
        return executor(*args, **kwargs)
    finally:
        del options[CACHE]


def model_config(patcher: comfy.model_patcher.ModelPatcher) -> ModelConfig:
    """Return the configuration of a MODEL of ours; any other MODEL raises CheckpointError."""
    if not isinstance(patcher.model, GloriaModel):
        raise CheckpointError(
            f"This MODEL is a {type(patcher.model).__name__}, not a Gloria model: connect Load Gloria DiT or Gloria "
            "Nano."
        )
    return patcher.model.gloria
