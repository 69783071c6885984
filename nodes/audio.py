"""Nodes for sound: loading speech, giving a model ears, and encoding sound on the clock of the video."""

from typing import Any

from .host.api import io
from .host.audio_branch import branch_files, with_branch
from .host.audio_branch import fingerprint as branch_fingerprint
from .host.encoders import FileEncoder, encoder_files
from .host.paths import sound_files
from .host.sound import BUNDLED, encode_sound, fingerprint, load_sound, parts_of
from .numbers import check_finite
from .sockets import GloriaAudio

_CATEGORY = "Gloria/audio"
_CONNECTED = "the connected one"
"""Choice of no encoder file."""


class LoadSpeech(io.ComfyNode):
    """A sound file, or the speech that comes with the pack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaLoadSpeech",
            display_name="Gloria Load Speech",
            category=_CATEGORY,
            description="Loads speech from a sound or video file of the input folder, and remembers the file: the film "
            "gets its own sound, not a copy of a copy. The bundled speech is there to try things out.",
            inputs=[
                io.Combo.Input(
                    "audio",
                    options=[BUNDLED, *sound_files()],
                    default=BUNDLED,
                    tooltip="The bundled speech, or a sound or video file of the input folder. Clean speech without "
                    "music gives the best lips. To upload a file from the page, use a stock Load Audio node once, then "
                    "press R and choose the file here: only from here does the film get the file's own sound.",
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


class LoadAudioBranch(io.ComfyNode):
    """Ears for a video model, from a public file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaLoadAudioBranch",
            display_name="Gloria Load Audio Branch",
            category="Gloria/loaders",
            description="Lets a video model hear speech: adds the audio branch of FantasyTalking, MultiTalk, "
            "InfiniteTalk (one speaker), HuMo or Gloria to it. Place it before LoRAs that change the model's parts and "
            "before nodes that compile it.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The video model that the branch was made for: Wan2.1 I2V 14B for FantasyTalking, "
                    "MultiTalk and InfiniteTalk, Wan2.1 T2V 14B for HuMo. It is shared, not copied.",
                ),
                io.Combo.Input(
                    "audio_branch",
                    options=branch_files(),
                    tooltip="A file of models/diffusion_models or models/model_patches. What it holds is told by its "
                    "contents, not by its name. It takes 1.7 GB (FantasyTalking) to 5.5 GB (HuMo) of memory beside the "
                    "model.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip="How strongly the sound moves the picture. Raise it a little where lips are lazy (but the "
                    "sampler's audio guidance first), lower it where faces overact; 0 is deaf. Costs nothing.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="The same model with ears. The one that came in stays as it was."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, audio_branch: str) -> bool | str:
        """Accept any name: files come and go while the page is open, and loading tells what is wrong."""
        return True

    @classmethod
    def fingerprint_inputs(cls, audio_branch: str, **_others: object) -> str:
        """Return what changes when the file changes."""
        return branch_fingerprint(audio_branch)

    @classmethod
    def execute(cls, model: Any, audio_branch: str, strength: float) -> io.NodeOutput:  # noqa: ANN401 - the host's MODEL
        """Add the branch."""
        return io.NodeOutput(with_branch(model, audio_branch, strength))


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
            "so that lips cannot drift however long the video is.",
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
                    "the model was trained at, which gives the best motion.",
                ),
                io.Float.Input(
                    "sync_offset",
                    default=0.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Seconds by which the lips come later (above 0) or earlier (below 0) than the sound "
                    "that is heard. Change it only if lips and sound are apart; costs nothing.",
                ),
                io.AudioEncoder.Input(
                    "audio_encoder",
                    optional=True,
                    tooltip="The encoder that the model's audio branch was trained with, from the Audio Encoder "
                    "Loader: wav2vec2-base-960h for FantasyTalking, chinese-wav2vec2-base for MultiTalk and "
                    "InfiniteTalk, whisper-large-v3 for HuMo. Gloria nano needs none.",
                ),
                io.Combo.Input(
                    "encoder_file",
                    options=[_CONNECTED, *encoder_files()],
                    default=_CONNECTED,
                    optional=True,
                    tooltip="Instead of a connected encoder: a folder of models/audio_encoders as it was downloaded "
                    "(with its config.json), or a file that the stock loader does not take. Needs the package "
                    "transformers, which ComfyUI has.",
                ),
                io.Int.Input(
                    "sync_frames",
                    default=0,
                    min=-600,
                    max=600,
                    optional=True,
                    tooltip="The same in whole frames of the video, added to sync_offset: 1 lets the lips come one "
                    "frame later. Step through the video where lips close on a p, b or m, and count. The sound in the "
                    "file stays as it is; costs nothing.",
                ),
            ],
            outputs=[GloriaAudio.Output(display_name="audio")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,  # noqa: ANN401 - the host's MODEL
        audio: dict[str, Any] | None,
        fps: float,
        sync_offset: float,
        audio_encoder: Any = None,  # noqa: ANN401 - the host's AUDIO_ENCODER
        encoder_file: str = _CONNECTED,
        sync_frames: int = 0,
    ) -> io.NodeOutput:
        """Encode the sound."""
        check_finite(fps=fps, sync_offset=sync_offset)
        if encoder_file != _CONNECTED:
            audio_encoder = FileEncoder(encoder_file)
        waveform, sample_rate, original = parts_of(audio)
        return io.NodeOutput(
            encode_sound(
                model,
                waveform,
                sample_rate,
                fps=fps,
                offset_s=sync_offset,
                offset_frames=sync_frames,
                encoder=audio_encoder,
                original=original,
            )
        )
