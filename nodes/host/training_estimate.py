"""What a training would take on this machine, whether it fits, and what to change where it does not."""

import shutil
from dataclasses import replace

import comfy.model_management
import torch

from ...gloria_core.train.advice import levers
from ...gloria_core.train.config import TrainConfig
from ...gloria_core.train.estimate import ClipShape, Estimate, device_speed, estimate
from ...gloria_core.train.shape import largest_shape
from .paths import training_folder
from .training_config import Wanted, options_of_stages, settings

_TIGHT = 0.9
"""Share of the free memory from which on a training is called tight: the estimate itself is true to 15 %."""


def estimate_training(wanted: Wanted) -> tuple[Estimate, str]:
    """Estimate a training before its first step.

    Returns:
        The numbers, and a report that says whether it fits, and which settings to change where it does not.

    Raises:
        GloriaError: a setting is wrong, or the footage was not prepared for this model.
    """
    config = settings(wanted)
    config = replace(config, task=replace(config.task, options=options_of_stages(wanted)[-1]))
    model, shape = largest_shape(config)
    device = comfy.model_management.get_torch_device()
    with torch.inference_mode(False), torch.enable_grad():  # the host runs nodes without gradients
        found = estimate(config, model, shape, device_speed(device))
    told = [_shape_line(shape), found.told(config), *_verdict(found, config, device, model.num_layers)]
    return found, "\n".join(told)


def _shape_line(shape: ClipShape) -> str:
    frames = 4 * (shape.num_latents - 1) + 1
    return (
        f"Largest batch: {shape.batch_size} of {frames} frames, {shape.height} x {shape.width} latents each, with "
        f"{len(shape.anchors)} anchors."
    )


def _verdict(found: Estimate, config: TrainConfig, device: torch.device, num_blocks: int) -> list[str]:
    machine = float(comfy.model_management.get_free_memory(torch.device("cpu")))
    if config.run.device == "cpu":
        places = [("this machine", found.device + found.machine, machine)]
    else:
        card = float(comfy.model_management.get_free_memory(device)) + _held_by_host(device)
        places = [("the graphics card", float(found.device), card), ("this machine", found.machine, machine)]
    lines = [_place_line(*place) for place in places]
    if any(needed > _TIGHT * free for _, needed, free in places):
        lines += ["What to change, the cheapest first:", *(f"- {lever}" for lever in levers(config, num_blocks))]
    disk = shutil.disk_usage(training_folder().parent).free
    if found.checkpoint * (config.log.keep + 1) > disk:
        lines.append(f"The disk has {disk / 1e9:.1f} GB left, which is too little: free some, or lower log.keep.")
    return lines


def _held_by_host(device: torch.device) -> float:
    """Return the memory of models that the host has on a card: they are unloaded before a training starts."""
    loaded = [model for model in comfy.model_management.current_loaded_models if model.device == device]
    return float(sum(model.model_loaded_memory() for model in loaded))


def _place_line(whose: str, needed: float, free: float) -> str:
    have = f"{free / 1e9:.1f} GB can be had"
    if needed > free:
        return f"The memory of {whose} will not do: {needed / 1e9:.1f} GB are needed, {have}."
    if needed > _TIGHT * free:
        return f"The memory of {whose} is tight: {needed / 1e9:.1f} GB are needed, {have}."
    return f"The memory of {whose} will do: {needed / 1e9:.1f} GB are needed, {have}."
