"""Nodes for sound: loading speech, and encoding it on the clock of the video."""

from typing import Any

from torch import Tensor

from .host.api import io
from .host.paths import sound_files
from .host.sound import BUNDLED, encode_sound, fingerprint, load_sound
from .sockets import GloriaAudio

_CATEGORY = "Gloria/audio"


class LoadSpeech(io.ComfyNode):
    """A sound file, or the speech that comes with the pack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaLoadSpeech",
            display_name="Gloria Load Speech",
            category=_CATEGORY,
            description="Loads speech from a sound or video file of the input folder. The bundled speech is there "
            "to try things out.",
            inputs=[
                io.Combo.Input(
                    "audio",
                    options=[BUNDLED, *sound_files()],
                    default=BUNDLED,
                    tooltip="The bundled speech, or a sound or video file of the input folder. Clean speech without "
                    "music gives the best lips. To upload a file from the page, use the stock Load Audio node in this "
                    "one's place.",
                )
            ],
            outputs=[io.Audio.Output(display_name="audio")],
        )

    @classmethod
    def validate_inputs(cls, audio: str) -> bool | str:
        """Accept any name of the input folder: files come and go while the page is open."""
        return True

    @classmethod
    def fingerprint_inputs(cls, audio: str) -> str:
        """Return what changes when the file changes."""
        return fingerprint(audio)

    @classmethod
    def execute(cls, audio: str) -> io.NodeOutput:
        """Load the file."""
        return io.NodeOutput(load_sound(audio))


class AudioEncoder(io.ComfyNode):
    """A sound as the model hears it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaAudioEncoder",
            display_name="Gloria Audio Encoder",
            category=_CATEGORY,
            description="Turns sound into what the model listens to, one row for each frame of the finished video, "
            "so that "
            "lips cannot drift however long the video is.",
            inputs=[
                io.Model.Input("model", tooltip="The model that will listen. It decides how the sound is encoded."),
                io.Audio.Input(
                    "audio", tooltip="The sound from the first frame of the video on. Trim it before if needed."
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=120.0,
                    step=0.01,
                    tooltip="Frames a second of the video; the same number as in the sampler. 0 takes the rate that "
                    "the model "
                    "was trained at, which gives the best motion.",
                ),
                io.Float.Input(
                    "sync_offset",
                    default=0.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Seconds by which the lips come later (above 0) or earlier (below 0) than the sound "
                    "that is heard. "
                    "Change it only if lips and sound are apart; costs nothing.",
                ),
                io.AudioEncoder.Input(
                    "audio_encoder",
                    optional=True,
                    tooltip="A wav2vec2 model from the Audio Encoder Loader, for models that listen through one. "
                    "Gloria nano "
                    "needs none.",
                ),
            ],
            outputs=[GloriaAudio.Output(display_name="audio")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,  # noqa: ANN401 - the host's MODEL
        audio: dict[str, Any],
        fps: float,
        sync_offset: float,
        audio_encoder: Any = None,  # noqa: ANN401 - the host's AUDIO_ENCODER
    ) -> io.NodeOutput:
        """Encode the sound."""
        waveform: Tensor = audio["waveform"]
        return io.NodeOutput(
            encode_sound(model, waveform, audio["sample_rate"], fps=fps, offset_s=sync_offset, encoder=audio_encoder)
        )
