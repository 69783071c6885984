"""Nodes for footage to train on: looking at it, and encoding it once."""

from typing import Any

from .host.api import io, ui
from .host.dataset import HostEncoder, check_dataset, fingerprint, prepare_dataset, sizes_for
from .host.encoders import FileEncoder, encoder_files
from .host.paths import dataset_names
from .host.training import say
from .sockets import GloriaDataset

_CATEGORY = "Gloria/training"
_CONNECTED = "the connected one"
"""Choice of no encoder file."""


def _footage_input() -> io.Input:
    return io.Combo.Input(
        "footage",
        options=dataset_names() or [""],
        tooltip="A folder of ComfyUI's input folder: videos, a .txt caption of the same name for each, and pictures of "
        "the character named by what they show (front.png, left.png, happy.png, global.png). Or a manifest (.jsonl). A "
        "link to a folder elsewhere will do.",
    )


def _size_inputs() -> list[io.Input]:
    return [
        io.String.Input(
            "resolution",
            default="",
            tooltip="Size that the videos are brought to, such as 832x480; several with commas. Only the number of "
            "pixels counts: each clip keeps its own shape. Empty is what the model is usually used at. Smaller trains "
            "faster and in less memory, and learns less detail.",
        ),
        io.Float.Input(
            "fps",
            default=0.0,
            min=0.0,
            max=120.0,
            step=0.01,
            tooltip="Frames a second that the model sees; 0 is the rate that it was trained at, which is right unless "
            "you know better. Footage of any rate is converted.",
        ),
    ]


class CheckDataset(io.ComfyNode):
    """What is wrong with some footage."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaCheckDataset",
            display_name="Gloria Check Dataset",
            category=_CATEGORY,
            description="Looks at every file of your footage before hours are spent on it: lists each problem with the "
            "file's name and what to do, and draws a contact sheet of clips and pictures. Nothing is changed.",
            inputs=[
                _footage_input(),
                *_size_inputs(),
                io.Boolean.Input(
                    "needs_sound",
                    default=False,
                    tooltip="Turn it on where ears or lips are to be trained: clips without sound, or with a silent "
                    "one, are then problems that stop the training.",
                ),
                io.Boolean.Input(
                    "play_to_the_end",
                    default=True,
                    tooltip="Decodes every video to its last frame, which finds damaged files. Turn it "
                    "off for a first look at many hours of footage.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model that you want to train: it tells the usual size and frame rate. Without it, "
                    "those of Wan 2.1.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="All problems, for Preview as Text."),
                io.Image.Output(display_name="contact_sheet", tooltip="A row for each clip, with its pictures."),
                io.Int.Output(display_name="problems", tooltip="How many problems stop the training of some footage."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, footage: str) -> bool | str:
        """Accept any name: folders come and go while the page is open, and looking tells what is wrong."""
        return True

    @classmethod
    def fingerprint_inputs(cls, footage: str, **_others: object) -> str:
        """Return what changes when a file changes."""
        return fingerprint(footage)

    @classmethod
    def execute(
        cls,
        footage: str,
        resolution: str,
        fps: float,
        needs_sound: bool,
        play_to_the_end: bool,
        model: Any = None,  # noqa: ANN401 - the host's MODEL
    ) -> io.NodeOutput:
        """Look at the footage."""
        report, sheet = check_dataset(
            footage,
            model,
            resolution,
            fps,
            needs_audio=needs_sound,
            decode=play_to_the_end,
            node_id=str(cls.hidden.unique_id),
        )
        say(report.text, str(cls.hidden.unique_id))
        shown = {**ui.PreviewImage(sheet, cls=cls).as_dict(), **ui.PreviewText(report.text).as_dict()}
        return io.NodeOutput(report.text, sheet, report.num_stopping, ui=shown)


def _more_inputs() -> list[io.Input]:
    return [
        io.AudioEncoder.Input(
            "audio_encoder",
            optional=True,
            tooltip="The encoder that the model listens through, from the Audio Encoder Loader. With a model "
            "without ears the sound is encoded for ears that you want to train. Gloria nano needs none.",
        ),
        io.Combo.Input(
            "encoder_file",
            options=[_CONNECTED, *encoder_files()],
            default=_CONNECTED,
            optional=True,
            tooltip="Instead of a connected encoder: a folder of models/audio_encoders as it was downloaded, "
            "or a file that the stock loader does not take.",
        ),
        io.ClipVision.Input(
            "clip_vision",
            optional=True,
            tooltip="From Load CLIP Vision (clip_vision_h): Wan 2.1's image-to-video models look at the first "
            "picture through it and cannot be trained without; other models ignore it. Costs a moment and "
            "0.7 MB for each video.",
        ),
        io.String.Input(
            "sample_prompts",
            default="",
            multiline=True,
            optional=True,
            tooltip="Texts of your own, a line each, that the training makes samples of beside two of your clips. They "
            "take anchors and sound of these in turn. Each makes every sample take longer; empty shows the clips "
            "alone.",
        ),
    ]


class PrepareDataset(io.ComfyNode):
    """Footage, encoded once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaPrepareDataset",
            display_name="Gloria Prepare Dataset",
            category=_CATEGORY,
            description="Encodes your footage for training, once: videos, pictures, captions and sound. Later, only "
            "what has changed is encoded again. It can be stopped at any time, and goes on from there.",
            inputs=[
                io.Model.Input("model", tooltip="The model that you want to train. It is not changed."),
                io.Vae.Input("vae", tooltip="The VAE that belongs to the model."),
                io.Clip.Input("clip", tooltip="The text encoder that belongs to the model."),
                _footage_input(),
                *_size_inputs(),
                io.Int.Input(
                    "longest_frames",
                    default=129,
                    min=5,
                    max=1025,
                    step=4,
                    tooltip="Longer videos are cut into equal pieces of at most so many frames. Training clips are "
                    "taken from anywhere in a piece, so it should be longer than they are. More takes more memory "
                    "while it is encoded.",
                ),
                io.Int.Input(
                    "shortest_frames",
                    default=17,
                    min=1,
                    max=1025,
                    step=4,
                    tooltip="Videos with fewer frames (at the model's frame rate) are left out and named. Lower it "
                    "where your clips are short; a training clip is never longer than its video.",
                ),
                *_more_inputs(),
            ],
            outputs=[
                GloriaDataset.Output(display_name="dataset", tooltip="The footage, ready for a training node."),
                io.String.Output(display_name="report", tooltip="What was encoded and what was left out."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, footage: str, encoder_file: str = _CONNECTED) -> bool | str:
        """Accept any names: files come and go while the page is open, and looking tells what is wrong."""
        return True

    @classmethod
    def fingerprint_inputs(cls, footage: str, **_others: object) -> str:
        """Return what changes when a file changes."""
        return fingerprint(footage)

    @classmethod
    def execute(  # noqa: PLR0913 - the inputs of the schema
        cls,
        model: Any,  # noqa: ANN401 - the host's MODEL
        vae: Any,  # noqa: ANN401 - the host's VAE
        clip: Any,  # noqa: ANN401 - the host's CLIP
        footage: str,
        resolution: str,
        fps: float,
        longest_frames: int,
        shortest_frames: int,
        audio_encoder: Any = None,  # noqa: ANN401 - the host's AUDIO_ENCODER
        encoder_file: str = _CONNECTED,
        clip_vision: Any = None,  # noqa: ANN401 - the host's CLIP_VISION
        sample_prompts: str = "",
    ) -> io.NodeOutput:
        """Encode what is not encoded yet."""
        if encoder_file != _CONNECTED:
            audio_encoder = FileEncoder(encoder_file)
        sizes = sizes_for(model, resolution, fps, longest_frames, shortest_frames)
        encoder = HostEncoder(model, vae, clip, audio_encoder, clip_vision)
        dataset, report = prepare_dataset(footage, encoder, sizes, str(cls.hidden.unique_id), sample_prompts)
        say(report, str(cls.hidden.unique_id))
        return io.NodeOutput(dataset, report, ui=ui.PreviewText(report))
