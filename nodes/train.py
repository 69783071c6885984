"""Nodes that train: a LoRA of a character, or a whole model."""

import time
from typing import Any

from .host.api import io, ui
from .host.training import say, train
from .host.training_config import NO_VAE, Wanted
from .host.training_estimate import estimate_training
from .sockets import Dataset
from .train_inputs import (
    adapter_inputs,
    amount_inputs,
    first_inputs,
    job_input,
    last_inputs,
    memory_inputs,
    more_settings,
    size_inputs,
)
from .train_shown import CATEGORY, job_outputs, told


class _Training(io.ComfyNode):
    """What both training nodes do."""

    @classmethod
    def validate_inputs(cls, weights: str, sample_vae: str = NO_VAE) -> bool | str:
        """Accept any names: files come and go while the page is open, and opening tells what is wrong."""
        return True

    @classmethod
    def fingerprint_inputs(cls, **_inputs: object) -> float:
        """Return something new each time: how the training stands is asked of its folder."""
        return time.time()


class TrainLoRA(_Training):
    """A LoRA, LoKr or LoHa of a character."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaTrainLoRA",
            display_name="Gloria Train LoRA",
            category=CATEGORY,
            description="Trains a LoRA on your footage, in a process of its own: a crash or a full card never takes "
            "ComfyUI down. Interrupt makes a checkpoint first; queued again it goes on. The finished file is in "
            "output/loras/gloria, which the stock LoRA loaders list too.",
            inputs=[
                *first_inputs(),
                job_input("my-character"),
                *adapter_inputs(),
                *size_inputs(),
                *memory_inputs(),
                *last_inputs(),
            ],
            outputs=job_outputs("lora_name"),
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, **given: Any) -> io.NodeOutput:  # noqa: ANN401 - the inputs of the schema by their names
        """Train, or go on."""
        method = {"kind": given["kind"], "preset": given["layers"], "rank": given["rank"]}
        return _train(cls, given, method)


class TrainFull(_Training):
    """A whole model, or the parts of it that are named."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaTrainFull",
            display_name="Gloria Train Full",
            category=CATEGORY,
            description="Trains the weights themselves, in a process of its own: for much footage and large machines "
            "(see Gloria Estimate Training), or for gloria-nano on any. run.train in more_settings names the parts. "
            "The finished model is in output/diffusion_models/gloria.",
            inputs=[
                *first_inputs(),
                job_input("my-model"),
                *amount_inputs(5000, 2e-5),
                *size_inputs(),
                *last_inputs(),
            ],
            outputs=job_outputs("model_name"),
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, **given: Any) -> io.NodeOutput:  # noqa: ANN401 - the inputs of the schema by their names
        """Train, or go on."""
        return _train(cls, given, {"kind": "full"})


class EstimateTraining(io.ComfyNode):
    """What a training would take."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        kinds, *others = adapter_inputs()
        kinds.options = [*kinds.options, "full"]
        return io.Schema(
            node_id="GloriaEstimateTraining",
            display_name="Gloria Estimate Training",
            category=CATEGORY,
            description="Tells before the first step how much memory, disk and time a training will take with these "
            "settings, whether this machine has them, and what to change where it has not. Takes seconds; nothing is "
            "loaded.",
            inputs=[
                *first_inputs(),
                kinds,
                *others,
                *size_inputs(),
                *memory_inputs(),
                more_settings(),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="The numbers in words, for Preview as Text."),
                io.Float.Output(display_name="memory_gb", tooltip="Memory of the device where it computes, in GB."),
                io.Float.Output(
                    display_name="seconds_a_step", tooltip="Time of a step; 0 where the card is not known."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, weights: str) -> bool | str:
        """Accept any name: files come and go while the page is open, and opening tells what is wrong."""
        return True

    @classmethod
    def fingerprint_inputs(cls, **_inputs: object) -> float:
        """Return something new each time: memory comes and goes."""
        return time.time()

    @classmethod
    def execute(cls, **given: Any) -> io.NodeOutput:  # noqa: ANN401 - the inputs of the schema by their names
        """Estimate."""
        full = given["kind"] == "full"
        adapter = {"kind": given["kind"], "preset": given["layers"], "rank": given["rank"]}
        found, report = estimate_training(_wanted(given, {"kind": "full"} if full else adapter))
        say(report, str(cls.hidden.unique_id))
        return io.NodeOutput(report, found.device / 1e9, found.seconds or 0.0, ui=ui.PreviewText(report))


def _train(node: type[io.ComfyNode], given: dict[str, Any], method: dict[str, Any]) -> io.NodeOutput:
    followed = train(
        _wanted(given, method),
        wait=given["wait"],
        num_processes=given.get("cards", 1),
        node_id=str(node.hidden.unique_id),
    )
    return told(followed, node)


def _wanted(given: dict[str, Any], method: dict[str, Any]) -> Wanted:
    dataset: Dataset = given["dataset"]
    return Wanted(
        dataset=dataset,
        weights=given["weights"],
        name=given.get("job", "estimate"),
        method=method,
        steps=given["steps"],
        learning_rate=given["learning_rate"],
        stage=given["stage"],
        batch_size=given["batch_size"],
        frames=given["frames"],
        checkpointing=given["checkpointing"],
        base=given.get("base_precision", "as is"),
        swap_blocks=given.get("swap_blocks", 0),
        optimiser=given.get("optimiser", "AdamW"),
        seed=given.get("seed", 0),
        sample_every=given.get("sample_every", 0),
        save_every=given.get("save_every", 0),
        held_out=given.get("held_out", 0.0),
        title=given.get("title", ""),
        more_settings=given.get("more_settings", ""),
        sample_vae=given.get("sample_vae", NO_VAE),
    )
