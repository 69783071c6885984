"""Nodes that make the video: the prompt schedule and the chunked long sampler."""

from typing import Any

from ..gloria_core.errors import ConfigError
from ..gloria_core.runs.old_takes import KEEP, REMOVE
from ..gloria_core.runs.reroll import BRIDGE, ONWARD
from ..gloria_core.sampling.guidance import Guidance
from ..gloria_core.sampling.prompts import PromptCue, parse
from .host.api import VideoFromFile, io, ui
from .host.guider import sampler_named, sigmas_for
from .host.long_video import make_video
from .host.paths import viewable
from .host.text import encode_texts
from .host.video_job import VideoRequest
from .numbers import check_finite
from .sample_inputs import long_sampler_inputs
from .sockets import NO_ANCHORS, Conditioning, EncodedPrompts, GloriaPrompts

_CATEGORY = "Gloria"
_IMAGES = 3
"""Place of the output with all pictures."""
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
        return io.NodeOutput(EncodedPrompts(cues, encode_texts(clip, {cue.text for cue in cues}), clip))


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
            inputs=long_sampler_inputs(),
            outputs=[
                io.Video.Output(display_name="video", tooltip="The file, for Save Video or Preview Video."),
                io.Image.Output(
                    display_name="last_frame", tooltip="The last picture as the model made it, to go on from."
                ),
                io.String.Output(
                    display_name="latents_folder", tooltip="Folder with the latents of each chunk; empty if not kept."
                ),
                io.Image.Output(
                    display_name="images",
                    tooltip="All pictures at once, for short clips. They are made only if something is connected here, "
                    "and refused where they would not fit into memory.",
                ),
                io.Image.Output(
                    display_name="drift_plot", tooltip="How much each chunk still looks like the character, drawn."
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, **given: Any) -> io.NodeOutput:  # noqa: ANN401 - the inputs of the schema by their names
        """Make the video."""
        node_id = str(cls.hidden.unique_id)
        made = make_video(_request(given, node_id, wants_images=_is_used(cls.hidden.prompt, node_id, _IMAGES)))
        # Not under "images": there the page would try to play the live preview's pictures as the video.
        name, subfolder, folder = viewable(VideoFromFile(str(made.path)))
        told = {
            "gloria_video": [{"filename": name, "subfolder": subfolder, "type": folder}],
            "gloria_run": [made.run],
            "gloria_plan": made.plan,
            "gloria_drift": made.drift,
        }
        return io.NodeOutput(
            VideoFromFile(str(made.path)),
            made.last_frame,
            str(made.latents or ""),
            made.images,
            made.drift_plot,
            ui=told,
        )


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


def _request(given: dict[str, Any], node_id: str, *, wants_images: bool) -> VideoRequest:
    check_finite(**given)
    model, name = given["model"], given["sampler_name"]
    sampler, sigmas = given.get("sampler"), given.get("sigmas")
    return VideoRequest(
        patcher=model,
        low_noise=given.get("model_low_noise"),
        boundary=given.get("boundary", 0.0),
        vae=given["vae"],
        anchors=given.get("anchors") or NO_ANCHORS,
        prompts=_prompts(given.get("prompts"), given.get("positive")),
        negative=given.get("negative"),
        audio=given.get("audio"),
        start_image=given.get("start_image"),
        end_image=given.get("end_image"),
        clip_start=given.get("clip_vision_output"),
        clip_end=given.get("clip_vision_end_image"),
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
        prefix=given["filename_prefix"],
        keep_latents=given["keep_latents"],
        node_id=node_id,
        run=given.get("run", ""),
        reroll=given.get("reroll", ""),
        bridges=given.get("after_reroll", ONWARD) == BRIDGE,
        wants_images=wants_images,
        snap=given.get("snap", "nearest"),
        prefix_noise=given.get("prefix_noise", 0.0),
        colour_guard=given.get("colour_guard", 0.0),
        drift_threshold=given.get("drift_threshold", 0.0),
        drift_tries=given.get("drift_tries", 2),
        sound_fit=given.get("sound_end", "hold"),
        continue_from=given.get("continue_from"),
        clip_vision=given.get("clip_vision"),
        removes_old=given.get("old_takes", KEEP) == REMOVE,
    )


def _is_used(prompt: Any, node_id: str, slot: int) -> bool:  # noqa: ANN401 - the queued graph by node
    """Whether anything in the queued graph is connected to an output of a node."""
    nodes = prompt.values() if isinstance(prompt, dict) else ()
    return any([node_id, slot] == value for node in nodes for value in node.get("inputs", {}).values())


def _prompts(prompts: EncodedPrompts | None, positive: Conditioning | None) -> EncodedPrompts:
    """Return the schedule, or a plain conditioning as a schedule of one prompt."""
    if (prompts is None) == (positive is None):
        have = "both are" if prompts is not None else "neither is"
        raise ConfigError(f"Connect either 'prompts' or 'positive' to the Chunked Long Sampler; {have} connected.")
    return prompts or EncodedPrompts((PromptCue(0.0, ""),), {"": positive or []})
