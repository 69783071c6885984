"""From a waveform to what a model hears: features on the output video's clock, and windows of them for each latent."""

from .envelope import mouth_opening
from .mel import MEL_BANDS, mel_features, silence_row
from .wav2vec import from_encoder_output, hidden_of
from .windows import windows

__all__ = ["MEL_BANDS", "from_encoder_output", "hidden_of", "mel_features", "mouth_opening", "silence_row", "windows"]
