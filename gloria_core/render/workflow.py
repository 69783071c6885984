"""The same job as a graph for the host's HTTP API, to POST to /prompt."""

from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..sampling.anchor_schedule import SLOTS
from .job import BUNDLED_SPEECH, GLOBAL, RenderJob

Node = dict[str, Any]

_SAMPLER = (
    "seconds", "fps", "width", "height", "seed", "steps", "text_guidance", "audio_guidance", "sampler_name",
    "scheduler", "chunk_latents", "overlap_latents", "layout", "enlarge_to", "filename_prefix", "keep_latents", "run",
    "reroll", "after_reroll", "old_takes", "prefix_noise", "colour_guard", "drift_threshold", "drift_tries", "snap",
    "sound_end",
)  # fmt: skip
"""Settings that have the same name in the long sampler's node."""


def api_prompt(job: RenderJob) -> dict[str, Node]:
    """Return a job of the bundled model as the host's API prompt.

    Files are named as the host finds them in its input folder: copy them there.

    Raises:
        ConfigError: the job has weights in Diffusers' layout, whose files the host keeps elsewhere.
    """
    if job.model.diffusers:
        raise ConfigError(
            "A job with weights in Diffusers' layout has no one workflow: ComfyUI keeps transformer, VAE and text "
            "encoder as files of its own. Begin with the templates 'Gloria - Wan...' on the page."
        )
    graph: dict[str, Node] = {"model": _node("GloriaNano", attention="as trained")}
    sampler = {name: getattr(job, name) for name in _SAMPLER} | {"model": ["model", 0], "vae": ["model", 2]}
    graph["prompts"] = _node("GloriaPromptSchedule", clip=["model", 1], schedule=job.prompts)
    graph["negative"] = _node("CLIPTextEncode", text=job.negative, clip=["model", 1])
    sampler |= {"prompts": ["prompts", 0], "negative": ["negative", 0]}
    sampler |= _anchors(job, graph) | _sound(job, graph) | _beginning(job, graph)
    graph["sampler"] = _node("GloriaChunkedLongSampler", **sampler)
    return graph


def _anchors(job: RenderJob, graph: dict[str, Node]) -> dict[str, Any]:
    """Add the character; returns the sampler's input."""
    if not job.anchors:
        return {}
    if "character" in job.anchors:
        graph["character"] = _node("GloriaNanoCharacter", character=str(job.anchors["character"]))
        pictures: dict[str, Any] = {"global_image": ["character", 0], "anchors": ["character", 1]}
    else:
        for word in SLOTS:
            if word in job.anchors:
                graph[word] = _node("LoadImage", image=Path(job.anchors[word]).name)
        pictures = {"global_image" if word == GLOBAL else word: [word, 0] for word in SLOTS if word in job.anchors}
    graph["anchors"] = _node("GloriaAnchorSetBuilder", vae=["model", 2], **pictures)
    if not job.anchor_schedule:
        return {"anchors": ["anchors", 0]}
    graph["schedule"] = _node("GloriaAnchorSchedule", anchors=["anchors", 0], schedule=job.anchor_schedule)
    return {"anchors": ["schedule", 0]}


def _sound(job: RenderJob, graph: dict[str, Node]) -> dict[str, Any]:
    if not job.audio:
        return {}
    name = job.audio if job.audio == BUNDLED_SPEECH else Path(job.audio).name
    graph["speech"] = _node("GloriaLoadSpeech", audio=name)
    offset = {"fps": job.fps, "sync_offset": job.sync_offset, "sync_frames": job.sync_frames}
    graph["sound"] = _node("GloriaAudioEncoder", model=["model", 0], audio=["speech", 0], **offset)
    return {"audio": ["sound", 0]}


def _beginning(job: RenderJob, graph: dict[str, Node]) -> dict[str, Any]:
    if job.continue_from:
        graph["before"] = _node("LoadVideo", file=Path(job.continue_from).name)
        return {"continue_from": ["before", 0]}
    if not job.start_image:
        return {}
    if job.start_image == GLOBAL:
        return {"start_image": ["character", 0] if "character" in job.anchors else [GLOBAL, 0]}
    graph["start"] = _node("LoadImage", image=Path(job.start_image).name)
    return {"start_image": ["start", 0]}


def _node(class_type: str, **inputs: Any) -> Node:  # noqa: ANN401 - whatever the node takes
    return {"class_type": class_type, "inputs": inputs}
