"""Audio encoders: the host's AUDIO_ENCODER, and files that its loader does not take, as the core uses them."""

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import folder_paths
import torch
from torch import nn

from ...gloria_core.audio.encoders import WhisperStates, open_encoder
from ...gloria_core.audio.speech import Whisper
from ...gloria_core.errors import AudioError

FOLDER = "audio_encoders"
_ENDING = ".safetensors"


def encoder_files() -> list[str]:
    """Return what lies in the host's ``audio_encoders`` folders: files, and folders as transformers writes them."""
    names = {name for name in folder_paths.get_filename_list(FOLDER) if name.lower().endswith(_ENDING)}
    folders = [Path(folder) for folder in folder_paths.get_folder_paths(FOLDER)]
    whole = {
        config.parent.relative_to(folder).as_posix() for folder in folders for config in folder.glob("*/config.json")
    }
    return sorted({*whole, *(name for name in names if Path(name).parts[0] not in whole)})


class FileEncoder:
    """An encoder that was opened through transformers; the host moves its weights to the device and back."""

    def __init__(self, name: str) -> None:
        self.opened = open_encoder(_encoder_path(name))
        network = self.opened.encoder if isinstance(self.opened, WhisperStates) else self.opened
        self.load_device = comfy.model_management.text_encoder_device()
        self.patcher = comfy.model_patcher.ModelPatcher(
            nn.Sequential(network),  # the host writes its own attributes on what it holds
            load_device=self.load_device,
            offload_device=comfy.model_management.text_encoder_offload_device(),
        )


def wav2vec(encoder: Any, wanted: str) -> tuple[nn.Module, torch.device]:  # noqa: ANN401 - AUDIO_ENCODER or FileEncoder
    """Return the wav2vec 2.0 network of an encoder, loaded, and where it runs.

    Args:
        encoder: the host's AUDIO_ENCODER, a FileEncoder, or None.
        wanted: name of the published encoder that the model was trained with.

    Raises:
        AudioError: there is no encoder, or it is of another kind.
    """
    network = _loaded(encoder, wanted)
    if not hasattr(network, "feature_projection"):
        raise AudioError(f"The audio encoder is not a wav2vec2; this model was trained with {wanted}: load that one.")
    return network, encoder.load_device


def whisper(encoder: Any, wanted: str) -> Whisper:  # noqa: ANN401 - AUDIO_ENCODER or FileEncoder
    """Return a callable that gives the states of a Whisper encoder, which is loaded; see ``wav2vec``."""
    network = _loaded(encoder, wanted)
    if isinstance(network, WhisperStates):
        return network
    if not hasattr(getattr(network, "encoder", None), "embed_positions"):
        raise AudioError(f"The audio encoder is not a Whisper; this model was trained with {wanted}: load that one.")
    device = encoder.load_device
    return lambda sound: network(sound.to(device)[None, None])[1]


def _loaded(encoder: Any, wanted: str) -> Any:  # noqa: ANN401
    if encoder is None:
        raise AudioError(
            f"This model listens through {wanted}: connect an Audio Encoder Loader with that file to 'audio_encoder', "
            "or choose it in 'encoder_file'."
        )
    comfy.model_management.load_model_gpu(encoder.patcher)
    return encoder.opened if isinstance(encoder, FileEncoder) else encoder.model


def _encoder_path(name: str) -> Path:
    for folder in folder_paths.get_folder_paths(FOLDER):
        root = Path(folder).resolve()
        path = (root / name).resolve()
        if path.is_relative_to(root) and path != root and path.exists():
            return path
    raise AudioError(f"There is no audio encoder {name!r} in models/{FOLDER}; copy it there and press R to refresh.")
