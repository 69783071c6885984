"""From a waveform to what a model hears: features on the output video's clock, and windows of them for each latent."""

from .envelope import mouth_opening
from .mel import MEL_BANDS, mel_features, silence_row
from .speech import group_features, layer_features, row_features, state_features
from .timing import moved_sound, on_video_clock, sync_offset_s
from .wav2vec import from_encoder_output, hidden_of
from .windows import branch_windows, silent_windows, windows

__all__ = [
    "MEL_BANDS",
    "branch_windows",
    "from_encoder_output",
    "group_features",
    "hidden_of",
    "layer_features",
    "mel_features",
    "mouth_opening",
    "moved_sound",
    "on_video_clock",
    "row_features",
    "silence_row",
    "silent_windows",
    "state_features",
    "sync_offset_s",
    "windows",
]
