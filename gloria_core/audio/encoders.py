"""wav2vec 2.0 and Whisper out of the files that people hold, where the host has no encoder for them.

Needs the package ``transformers``, which is imported here only when an encoder is opened: a ComfyUI always has it, and
nothing else of the core needs it. Nothing is ever fetched.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import AudioError
from .prepare import SAMPLE_RATE

_HEAD = 64
"""Width of an attention head in every published wav2vec 2.0 and Whisper."""
_WHISPER_STATES = "encoder.embed_positions.weight"
_WAV2VEC_MARK = "feature_projection.projection.weight"
_WRAPPERS = ("wav2vec2.", "model.")
_HEADS_ABOVE = ("lm_head.", "quantizer.", "project_q.", "project_hid.", "decoder.", "proj_out.")
"""What stands above the networks in files of whole recognisers and of pre-training; not used."""


def open_encoder(path: Path) -> "nn.Module | WhisperStates":
    """Open an audio encoder.

    Args:
        path: a folder as ``transformers`` writes it (config.json and weights), or one .safetensors file whose names and
            shapes tell what it is.

    Returns:
        A wav2vec 2.0 network in evaluation mode, or a callable that gives Whisper's states; both in float32 on the CPU.

    Raises:
        AudioError: ``transformers`` is missing, the file is cut or holds no such encoder, or weights are missing.
    """
    transformers = _transformers()
    if not path.is_dir():
        return _from_weights(transformers, _read(path), path.name)
    if not (path / "config.json").is_file():
        raise AudioError(f"The folder {path.name} has no config.json; download the whole folder of the audio encoder.")
    try:
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
        if config.model_type not in ("wav2vec2", "whisper"):
            raise AudioError(_unknown(path.name, f"it is a {config.model_type}"))
        kind = transformers.Wav2Vec2Model if config.model_type == "wav2vec2" else transformers.WhisperModel
        network, report = kind.from_pretrained(
            path, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise AudioError(
            f"The audio encoder in {path.name} cannot be opened ({str(error).splitlines()[0][:200]}); download its "
            "folder again."
        ) from error
    _check_whole(report["missing_keys"], path.name)
    return _ready(transformers, network)


def _transformers() -> ModuleType:
    try:
        import transformers  # optional, and slow to import
    except ImportError as error:
        raise AudioError(
            "This audio encoder is opened with the package 'transformers', which is not installed: run "
            "'pip install transformers' in the environment of this program."
        ) from error
    return transformers


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        raise AudioError(f"{path.name} is no .safetensors file of an audio encoder; choose one, or its whole folder.")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise AudioError(f"The audio encoder {path.name} was cut or is not safetensors; download it again.") from error
    for wrapper in _WRAPPERS:
        weights = {name.removeprefix(wrapper): tensor for name, tensor in weights.items()}
    return {name: tensor for name, tensor in weights.items() if not name.startswith(_HEADS_ABOVE)}


def _from_weights(transformers: ModuleType, weights: Mapping[str, Tensor], name: str) -> "nn.Module | WhisperStates":
    if _WAV2VEC_MARK in weights:
        network = transformers.Wav2Vec2Model(_wav2vec_config(transformers, weights))
    elif _WHISPER_STATES in weights:
        network = transformers.models.whisper.modeling_whisper.WhisperEncoder(_whisper_config(transformers, weights))
        weights = {key.removeprefix("encoder."): tensor for key, tensor in weights.items()}
    else:
        raise AudioError(_unknown(name, f"its first tensor is {next(iter(weights), 'none')!r}"))
    if _WAV2VEC_MARK in weights and "masked_spec_embed" in network.state_dict():
        weights = {"masked_spec_embed": torch.zeros_like(network.masked_spec_embed), **weights}  # for training alone
    try:
        report = network.load_state_dict({key: tensor.float() for key, tensor in weights.items()}, strict=False)
    except RuntimeError as error:
        raise AudioError(_unknown(name, str(error).splitlines()[-1].strip()[:200])) from error
    _check_whole(report.missing_keys, name)
    return _ready(transformers, network)


def _wav2vec_config(transformers: ModuleType, weights: Mapping[str, Tensor]) -> Any:  # noqa: ANN401 - transformers' own
    """Read the sizes off the shapes; the published large models, and only they, norm after every convolution."""
    convolutions = _count(weights, "feature_extractor.conv_layers.")
    hidden, _ = weights[_WAV2VEC_MARK].shape
    positions = next(t for n, t in weights.items() if "pos_conv_embed" in n and t.ndim == 3 and t.shape[0] == hidden)
    large = f"feature_extractor.conv_layers.{convolutions - 1}.layer_norm.weight" in weights
    return transformers.Wav2Vec2Config(
        hidden_size=hidden,
        num_hidden_layers=_count(weights, "encoder.layers."),
        num_attention_heads=max(hidden // _HEAD, 1),
        intermediate_size=weights["encoder.layers.0.feed_forward.intermediate_dense.weight"].shape[0],
        conv_dim=[weights[f"feature_extractor.conv_layers.{i}.conv.weight"].shape[0] for i in range(convolutions)],
        conv_bias="feature_extractor.conv_layers.0.conv.bias" in weights,
        feat_extract_norm="layer" if large else "group",
        do_stable_layer_norm=large,
        num_conv_pos_embeddings=positions.shape[2],
        num_conv_pos_embedding_groups=hidden // positions.shape[1],
    )


def _whisper_config(transformers: ModuleType, weights: Mapping[str, Tensor]) -> Any:  # noqa: ANN401 - transformers' own
    places, hidden = weights[_WHISPER_STATES].shape
    return transformers.WhisperConfig(
        d_model=hidden,
        encoder_layers=_count(weights, "encoder.layers."),
        encoder_attention_heads=max(hidden // _HEAD, 1),
        encoder_ffn_dim=weights["encoder.layers.0.fc1.weight"].shape[0],
        num_mel_bins=weights["encoder.conv1.weight"].shape[1],
        max_source_positions=places,
    )


def _count(weights: Mapping[str, Tensor], head: str) -> int:
    """Return how many numbers follow a beginning of a name."""
    return len({name[len(head) :].split(".")[0] for name in weights if name.startswith(head)})


def _check_whole(missing: Sequence[str], name: str) -> None:
    lost = sorted(key for key in missing if not key.startswith(("masked_spec_embed", "decoder.")))
    if lost:
        raise AudioError(
            f"The audio encoder {name} lacks {len(lost)} weights ({', '.join(lost[:5])}); download it again."
        )


def _unknown(name: str, why: str) -> str:
    return (
        f"{name} is no audio encoder that this pack knows ({why}); use wav2vec2-base-960h, chinese-wav2vec2-base or "
        "whisper-large-v3, whichever the audio branch was trained with."
    )


def _ready(transformers: ModuleType, network: Any) -> "nn.Module | WhisperStates":  # noqa: ANN401 - transformers' own
    network = network.float().eval().requires_grad_(False)
    if network.config.model_type == "wav2vec2":
        return network
    return WhisperStates(transformers, getattr(network, "encoder", network))


class WhisperStates:
    """Whisper's encoder, from a sound to every state; the network may be moved to another device."""

    def __init__(self, transformers: ModuleType, encoder: Any) -> None:  # noqa: ANN401 - transformers' own
        self.encoder = encoder
        self.spectra = transformers.WhisperFeatureExtractor(feature_size=encoder.config.num_mel_bins)

    def __call__(self, sound: Tensor) -> list[Tensor]:
        """Encode (samples,) at 16 kHz; returns the embedding, what each layer gives, the last one normed."""
        mel = self.spectra(sound.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        with torch.no_grad():
            made = self.encoder(mel.to(self.encoder.device), output_hidden_states=True)
        return list(made.hidden_states)
