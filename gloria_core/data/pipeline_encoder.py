"""A Wan pipeline in Diffusers' layout as the encoder of a dataset, for machines without ComfyUI."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..audio import group_features, layer_features, mel_features, row_features, state_features
from ..audio.encoders import WhisperStates, open_encoder
from ..checkpoint import inspect
from ..config import AudioConfig
from ..errors import AudioError, CheckpointError
from ..render.keep import Keep
from ..render.wan_text import WanTexts
from ..render.wan_vae import WanVae
from ..runs.digest import digest_of, digest_of_weights
from ..types import AudioFeatures
from .pipeline_pictures import PipelinePictures, weights_id

_NEEDED = ("transformer", "vae", "text_encoder", "tokenizer")
_DTYPES = {"cuda": torch.bfloat16, "cpu": torch.float32}


class PipelineEncoder:
    """Encodes footage with a pipeline's VAE and text encoder, see `data.encoders.Encoder`.

    Args:
        folder: of the pipeline: ``vae``, ``text_encoder``, ``tokenizer``, ``transformer``, and ``image_encoder`` for
            models that look at the first picture through CLIP.
        weights: the model that will be trained, where it is not the pipeline's own transformer: its ears and what it is
            shown of pictures count.
        audio_encoder: the wav2vec 2.0 or Whisper that these ears need, a folder or a file; None where they need none.
            With a deaf model, the wav2vec 2.0 of ears that are still to be made (stage I).
        device: where everything runs.

    Raises:
        CheckpointError: a part is missing or cut.
        ConfigError: a package for it is missing.
        AudioError: the model's ears need an encoder that is not given, or is of another kind.
    """

    def __init__(
        self,
        folder: Path,
        *,
        weights: Path | None = None,
        audio_encoder: Path | None = None,
        device: torch.device | None = None,
    ) -> None:
        device = device or torch.device("cpu")
        missing = [name for name in _NEEDED if not (folder / name).is_dir()]
        if missing:
            raise CheckpointError(
                f"The folder {folder} lacks {', '.join(missing)}; a pipeline in Diffusers' layout has the folders "
                f"{', '.join(_NEEDED)}."
            )
        self._device = device
        config = inspect(weights or folder / "transformer").config
        audio = config.audio or (AudioConfig() if audio_encoder is not None else None)
        self._vae = WanVae(folder, device)
        dtype = _DTYPES.get(device.type, torch.float32)
        text = weights_id(folder / "text_encoder")
        keep = Keep(folder / "encoded", writes=False)  # the cache keeps what is encoded, nothing else does
        self._texts = WanTexts(folder, text, keep, device, dtype)
        self.codec, self.fps = config.codec, config.fps
        self.audio_kind = audio.kind if audio else ""
        self._listener = _listener(self.audio_kind, audio_encoder, device)
        self.stride_px = self._vae.stride
        self.grid_px = self.stride_px * config.patch_size[1]
        self.pictures = PipelinePictures(folder, self._vae, config, device) if config.has_image_channels else None
        self.video_id = digest_of("diffusers", self.codec, weights_id(folder / "vae"))
        self.text_id = digest_of("transformers", text, str(dtype))
        self.audio_id = digest_of(self.audio_kind, _network_id(self._listener)) if self.audio_kind else ""

    def encode_video(self, frames: NDArray[np.uint8]) -> Tensor:
        """Encode 4k + 1 frames (F, H, W, 3) to normalised latents (1, C, T, h, w)."""
        return self._vae.encode(torch.from_numpy(frames).float() / 255.0)

    def encode_text(self, texts: list[str]) -> Sequence[Tensor]:
        """Encode texts to rows (512, D) each; the encoder is loaded for them and let go again."""
        rows = self._texts(texts)
        return [rows[text][0].float() for text in texts]

    def encode_audio(self, waveform: Tensor, sample_rate: int, fps: float) -> AudioFeatures:
        """Encode a whole sound (channels, samples)."""
        count = max(1, math.ceil(waveform.shape[-1] / sample_rate * fps))
        match self.audio_kind, self._listener:
            case "wav2vec2", nn.Module() as network:
                return state_features(network, waveform, sample_rate, fps=fps, num_frames=count, device=self._device)
            case "wav2vec2-rows", nn.Module() as network:
                return row_features(network, waveform, sample_rate, fps=fps, device=self._device)
            case "wav2vec2-layers", nn.Module() as network:
                return layer_features(network, waveform, sample_rate, fps=fps, num_frames=count, device=self._device)
            case "whisper-groups", WhisperStates() as states:
                return group_features(states, waveform, sample_rate, fps=fps, num_frames=count)
            case "mel", _:
                return mel_features(waveform, sample_rate, fps=fps, num_frames=count)
        raise AudioError(f"The audio encoder is of another kind than the model's {self.audio_kind!r} ears need.")


def _listener(kind: str, path: Path | None, device: torch.device) -> nn.Module | WhisperStates | None:
    if kind in ("", "mel"):
        return None
    if path is None:
        raise AudioError(f"The model hears {kind!r}: name its encoder with --audio-encoder.")
    opened = open_encoder(path)
    if isinstance(opened, WhisperStates) != (kind == "whisper-groups"):
        raise AudioError(
            f"The audio encoder {path.name} is of another kind than the model's {kind!r} ears need; name with "
            "--audio-encoder the one that they were trained with."
        )
    (opened.encoder if isinstance(opened, WhisperStates) else opened).to(device)
    return opened


def _network_id(listener: nn.Module | WhisperStates | None) -> str:
    if listener is None:
        return ""
    network: nn.Module = listener.encoder if isinstance(listener, WhisperStates) else listener
    return digest_of_weights(network.state_dict().items())
