"""Nodes that make the video: the prompt schedule and the chunked long sampler."""

from typing import Any

from ..gloria_core.errors import ConfigError
from ..gloria_core.media.layout import LAYOUTS
from ..gloria_core.sampling.guidance import Guidance
from ..gloria_core.sampling.prompts import PromptCue, parse
from .host.api import VideoFromFile, io, ui
from .host.guider import SAMPLERS, SCHEDULERS, sampler_named, sigmas_for
from .host.long_video import VideoRequest, make_video
from .host.paths import new_output, viewable
from .host.text import encode_texts
from .sockets import (
    Conditioning,
    EncodedPrompts,
    GloriaAnchors,
    GloriaAudio,
    GloriaPrompts,
)

_CATEGORY = "Gloria"
_EXAMPLE = "0:00 faces the camera, neutral\n0:05 faces the camera, happy\n0:10 turns to the left, happy"


class PromptSchedule(io.ComfyNode):
    """Prompts that take over from each other along the video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaPromptSchedule",
            display_name="Gloria Prompt Schedule",
            category=_CATEGORY,
            description="A list of prompts with the time at which each takes over. A prompt can change only where a "
            "chunk "
            "begins; each is moved to the nearest one.",
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder that belongs to the model."),
                io.String.Input(
                    "schedule",
                    multiline=True,
                    default=_EXAMPLE,
                    tooltip="One prompt a line: the time, a space, the text. Times are seconds (12 or 12.5) or "
                    "m:ss. The first "
                    "line begins at 0:00. More lines cost nothing while the video is made.",
                ),
            ],
            outputs=[GloriaPrompts.Output(display_name="prompts")],
        )

    @classmethod
    def execute(cls, clip: Any, schedule: str) -> io.NodeOutput:  # noqa: ANN401 - the host's CLIP
        """Read the schedule and encode its texts."""
        cues = parse(schedule)
        return io.NodeOutput(EncodedPrompts(cues, encode_texts(clip, {cue.text for cue in cues})))


class ChunkedLongSampler(io.ComfyNode):
    """A video of any length, chunk by chunk, straight into a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaChunkedLongSampler",
            display_name="Gloria Chunked Long Sampler",
            category=_CATEGORY,
            description="Makes a video of any length with one character. Each chunk goes on from the last pictures "
            "of the one "
            "before, and all anchors stay in sight. Every finished chunk is written to the file at once: memory "
            "does not grow, "
            "and stopping leaves a video that plays.",
            inputs=[
                *_sockets(),
                *_video_widgets(),
                *_sampling_widgets(),
                *_solver_widgets(),
                *_chunk_widgets(),
                *_file_widgets(),
                *_expert_sockets(),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The file, for Save Video or Preview Video."),
                io.Image.Output(
                    display_name="last_frame", tooltip="The last picture as the model made it, to go on from."
                ),
                io.String.Output(
                    display_name="latents_folder", tooltip="Folder with the latents of each chunk; empty if not kept."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, **given: Any) -> io.NodeOutput:  # noqa: ANN401 - the inputs of the schema by their names
        """Make the video."""
        request = _request(given, str(cls.hidden.unique_id))
        made = make_video(request)
        # Not under "images": there the page would try to play the live preview's pictures as the video.
        told = {"gloria_video": [{"filename": made.path.name, "subfolder": request.place.subfolder, "type": "output"}]}
        return io.NodeOutput(VideoFromFile(str(made.path)), made.last_frame, str(made.latents or ""), ui=told)


class PreviewVideo(io.ComfyNode):
    """A player for a video that is on disk already."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaPreviewVideo",
            display_name="Gloria Preview Video",
            category=_CATEGORY,
            description="Plays a video in the page without writing it a second time. Save Video would make a copy.",
            inputs=[io.Video.Input("video", tooltip="The video, from the Chunked Long Sampler or any other node.")],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, video: Any) -> io.NodeOutput:  # noqa: ANN401 - the host's VIDEO
        """Tell the page where the video lies."""
        name, subfolder, folder = viewable(video)
        return io.NodeOutput(ui=ui.PreviewVideo([ui.SavedResult(name, subfolder, io.FolderType(folder))]))


def _request(given: dict[str, Any], node_id: str) -> VideoRequest:
    model, name = given["model"], given["sampler_name"]
    sampler, sigmas = given.get("sampler"), given.get("sigmas")
    return VideoRequest(
        patcher=model,
        vae=given["vae"],
        anchors=given["anchors"],
        prompts=_prompts(given.get("prompts"), given.get("positive")),
        negative=given.get("negative"),
        audio=given.get("audio"),
        start_image=given.get("start_image"),
        seconds=given["seconds"],
        fps=given["fps"],
        width=given["width"],
        height=given["height"],
        chunk_latents=given["chunk_latents"],
        prefix_latents=given["overlap_latents"],
        guidance=Guidance(text_scale=given["text_guidance"], audio_scale=given["audio_guidance"]),
        sampler=sampler or sampler_named(name),
        sigmas=sigmas if sigmas is not None else sigmas_for(model, name, given["scheduler"], given["steps"]),
        seed=given["seed"],
        layout=given["layout"],
        smallest_side=given["enlarge_to"],
        place=new_output(given["filename_prefix"], given["width"], given["height"]),
        keep_latents=given["keep_latents"],
        node_id=node_id,
    )


def _prompts(prompts: EncodedPrompts | None, positive: Conditioning | None) -> EncodedPrompts:
    """Return the schedule, or a plain conditioning as a schedule of one prompt."""
    if (prompts is None) == (positive is None):
        have = "both are" if prompts is not None else "neither is"
        raise ConfigError(f"Connect either 'prompts' or 'positive' to the Chunked Long Sampler; {have} connected.")
    return prompts or EncodedPrompts((PromptCue(0.0, ""),), {"": positive or []})


def _sockets() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="A Gloria model. LoRAs and ModelSamplingSD3 (the shift) work on it as usual."),
        io.Vae.Input("vae", tooltip="The VAE that belongs to the model."),
        GloriaAnchors.Input("anchors", tooltip="The character, from the Anchor Set Builder."),
        GloriaPrompts.Input(
            "prompts", optional=True, tooltip="What happens when, from the Prompt Schedule. Connect this or 'positive'."
        ),
        io.Conditioning.Input(
            "positive", optional=True, tooltip="One prompt for the whole video. Connect this or 'prompts'."
        ),
        io.Conditioning.Input(
            "negative",
            optional=True,
            tooltip="What you do not want; an empty text will do. Needed only where text guidance is not 1.",
        ),
        GloriaAudio.Input(
            "audio",
            optional=True,
            tooltip="The sound to speak, from the Audio Encoder. It also becomes the file's sound.",
        ),
        io.Image.Input(
            "start_image",
            optional=True,
            tooltip="The first picture of the video, at the video's size. Without one the model begins from the "
            "global anchor "
            "as it likes.",
        ),
    ]


def _video_widgets() -> list[io.Input]:
    return [
        io.Float.Input(
            "seconds",
            default=10.0,
            min=0.0,
            max=36000.0,
            step=0.01,
            tooltip="Length of the video. Time grows with it, memory does not.",
        ),
        io.Float.Input(
            "fps",
            default=0.0,
            min=0.0,
            max=120.0,
            step=0.01,
            tooltip="Frames a second; the same number as in the Audio Encoder. 0 takes the rate that the model was "
            "trained at, "
            "which gives the best motion.",
        ),
        io.Int.Input(
            "width",
            default=0,
            min=0,
            max=16384,
            step=8,
            tooltip="Width of the video in pixels. 0 takes the global anchor's. Larger costs time and memory.",
        ),
        io.Int.Input(
            "height",
            default=0,
            min=0,
            max=16384,
            step=8,
            tooltip="Height of the video in pixels. 0 takes the global anchor's. Larger costs time and memory.",
        ),
    ]


def _sampling_widgets() -> list[io.Input]:
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="Another number gives another take. Each chunk's noise is derived from it.",
        ),
        io.Int.Input(
            "steps",
            default=8,
            min=1,
            max=1000,
            tooltip="Solver steps of each chunk. More are slower and cleaner: gloria-nano is good from 8 on, large "
            "models need "
            "20 to 50.",
        ),
        io.Float.Input(
            "text_guidance",
            default=1.0,
            min=0.0,
            max=30.0,
            step=0.05,
            tooltip="How hard the prompt is followed. 1 is as trained and fastest; raise it if commands are "
            "ignored. Anything "
            "but 1 needs a negative prompt and one more pass a step.",
        ),
        io.Float.Input(
            "audio_guidance",
            default=1.0,
            min=0.0,
            max=30.0,
            step=0.05,
            tooltip="How hard the mouth follows the sound. 1 is as trained; raise it if the mouth moves too little. "
            "Anything "
            "but the text guidance's value costs one more pass a step.",
        ),
    ]


def _solver_widgets() -> list[io.Input]:
    return [
        io.Combo.Input(
            "sampler_name", options=list(SAMPLERS), default="euler", tooltip="The solver. Euler is a safe choice."
        ),
        io.Combo.Input(
            "scheduler",
            options=list(SCHEDULERS),
            default="simple",
            tooltip="How the steps are spread over the noise levels. 'simple' with ModelSamplingSD3's shift is a "
            "safe choice.",
        ),
    ]


def _chunk_widgets() -> list[io.Input]:
    return [
        io.Int.Input(
            "chunk_latents",
            default=0,
            min=0,
            max=1024,
            tooltip="Length of a chunk in latent frames (4 pictures each), overlap included. 0 takes the length "
            "that the model "
            "was trained with, which is best; shorter saves memory and costs time.",
        ),
        io.Int.Input(
            "overlap_latents",
            default=4,
            min=1,
            max=64,
            tooltip="Latent frames that each chunk takes over from the one before. 4 is as trained; more is "
            "smoother and slower.",
        ),
    ]


def _file_widgets() -> list[io.Input]:
    return [
        io.Combo.Input(
            "layout",
            options=list(LAYOUTS),
            default="plain",
            tooltip="'plain' is the video alone; 'strip' puts the anchors, the prompt and the current direction "
            "beside it. "
            "Costs almost nothing.",
        ),
        io.Int.Input(
            "enlarge_to",
            default=0,
            min=0,
            max=4096,
            step=8,
            tooltip="Enlarge the file's pictures by a whole number until the smaller side has this many pixels; 0 "
            "leaves them. "
            "Good for tiny models; adds no detail.",
        ),
        io.String.Input(
            "filename_prefix",
            default="gloria/video",
            tooltip="Folder and name below the output folder; a number is added.",
        ),
        io.Boolean.Input(
            "keep_latents",
            default=True,
            tooltip="Keep the latents of each chunk beside the video, to decode or repair it later. Costs some disk "
            "space.",
        ),
    ]


def _expert_sockets() -> list[io.Input]:
    return [
        io.Sampler.Input("sampler", optional=True, tooltip="A SAMPLER to use instead of sampler_name."),
        io.Sigmas.Input(
            "sigmas",
            optional=True,
            tooltip="Noise levels to use instead of scheduler and steps; from the highest to 0.",
        ),
    ]
