"""How the samples of a training on footage are made and shown; everything about them is checked before it begins."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import ConfigError, DatasetError
from ..render.wan_vae import check_vae
from ..sampling.guidance import Guidance
from ..types import TrainBatch
from .cache import Cache
from .options import FootageOptions
from .prepared import Prepared
from .samples import Decode, Decoder, Sample, frames_by_codec, frames_by_vae, write_samples
from .sheet import Guided, sample_clips


class SampleMaker:
    """Makes samples with the network that is trained, and decodes them with a VAE that is there only meanwhile.

    Args:
        options: of the task.
        config: of the network.
        prepared: the dataset.
        cache: where its texts lie.

    Raises:
        CheckpointError: the VAE is missing, not whole, or of another latent space.
        ConfigError: guidance cannot be, or a package is missing.
        DatasetError: guidance needs the empty text, and it was not prepared.
    """

    def __init__(self, options: FootageOptions, config: ModelConfig, prepared: Prepared, cache: Cache) -> None:
        self._options, self._config = options, config
        self._codec: Decoder | None = None
        if options.vae:
            check_vae(Path(options.vae), config.out_channels)
        guidance = Guidance(text_scale=options.sample_guidance, audio_scale=options.sample_audio_guidance)
        self._guided = Guided(guidance, _empty_text(options, prepared, cache) if self.is_wanted else None)

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to show samples with."""
        return bool(self._options.decoder or self._options.vae)

    def load_codec(self) -> None:
        """Load the decoder that is named by a dotted path, which holds in the process that trains alone.

        Raises:
            ConfigError: there is no such function.
        """
        if self._options.decoder:
            self._codec = _codec(self._options.decoder)

    def make(self, dit: nn.Module, batch: TrainBatch, number: int, sound: Tensor | None) -> Sample:
        """Make a clip anew from its conditions.

        Args:
            dit: the network, in evaluation mode.
            batch: the clip, with text rows.
            number: of the sample; each has noise of its own, the same every time.
            sound: what is heard of it; see `Sample`.
        """
        there = batch.on(next(dit.parameters()).device)
        assert there.context is not None
        options = self._options
        made = sample_clips(
            dit,
            there,
            there.context,
            steps=options.sample_steps,
            shift=self._config.shift,
            seed=options.sample_seed + number,
            guided=self._guided,
        )
        return Sample(batch.latents, made.float().cpu(), sound)

    def write(self, samples: Sequence[Sample], path: Path, fps: float, device: torch.device) -> None:
        """Write samples as a sheet and a film, see `samples.write_samples`; what decodes them is let go again."""
        with torch.autocast(device.type, enabled=False):
            write_samples(samples, self._decode(device), path, fps)
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def _decode(self, device: torch.device) -> Decode:
        if self._options.vae:
            return frames_by_vae(Path(self._options.vae), torch.device(self._options.vae_device or device))
        return frames_by_codec(self._codec or _codec(self._options.decoder))


def _codec(target: str) -> Decoder:
    """Make what a dotted path names; ConfigError where there is no such function."""
    module, _, name = target.partition(":")
    try:
        make: Callable[[], Decoder] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"decoder is {target!r}, which cannot be imported ({error}); leave it empty.") from error
    return make()


def _empty_text(options: FootageOptions, prepared: Prepared, cache: Cache) -> Tensor | None:
    """Return the rows (1, L, D) that guidance compares with; None where none are needed."""
    if options.sample_guidance == 1.0:
        return None
    if not prepared.empty_text_key:
        raise DatasetError(
            f"sample_guidance is {options.sample_guidance:g}, which compares with the empty text, and the dataset was "
            "prepared without it: prepare it again (nothing else is encoded anew), or set sample_guidance to 1."
        )
    return cache.get(prepared.empty_text_key)["rows"].float()[None]
