"""Nodes for trainings that were begun: looking at them, stopping them, going on with them."""

import time

from .host.api import io, ui
from .host.training import begin, follow, free_memory, named, say, shown, stop
from .train_shown import CATEGORY, job_outputs, told


def _job_input() -> io.Input:
    return io.String.Input(
        "job",
        default="",
        tooltip="The training's name, as it was given to the Train node. Empty takes the one that changed last.",
    )


class WatchTraining(io.ComfyNode):
    """How a training stands."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaWatchTraining",
            display_name="Gloria Watch Training",
            category=CATEGORY,
            description="Shows how a training stands: loss, held-out loss, time left, latest samples, and why it ended "
            "where it did. It also works after the page or the server was restarted.",
            inputs=[
                _job_input(),
                io.Boolean.Input(
                    "wait",
                    default=False,
                    tooltip="On: the node follows the training to its end, and ComfyUI does nothing else meanwhile; "
                    "Interrupt makes a checkpoint and stops it. Off: looks once.",
                ),
            ],
            outputs=job_outputs("file_name"),
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: object) -> float:
        """Return something new each time: how the training stands is asked of its folder."""
        return time.time()

    @classmethod
    def execute(cls, job: str, wait: bool) -> io.NodeOutput:
        """Look at the training."""
        found = named(job)
        return told(follow(found, str(cls.hidden.unique_id)) if wait else shown(found), cls)


class StopTraining(io.ComfyNode):
    """The end of a training that runs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaStopTraining",
            display_name="Gloria Stop Training",
            category=CATEGORY,
            description="Asks a training that goes on by itself to make a checkpoint and stop, after the step that it "
            "is in. Queued a second time before it has stopped, it ends the training at once.",
            inputs=[
                _job_input(),
                io.Boolean.Input(
                    "wait",
                    default=True,
                    tooltip="On: the node waits until the training has stopped, so that what comes after it has the "
                    "card to itself. Off: returns at once.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="job", tooltip="The training's name, for Resume."),
                io.String.Output(display_name="report", tooltip="What was done, in words."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: object) -> float:
        """Return something new each time: it is to stop each time."""
        return time.time()

    @classmethod
    def execute(cls, job: str, wait: bool) -> io.NodeOutput:
        """Stop the training."""
        found = named(job)
        report = stop(found, wait=wait)
        say(report, str(cls.hidden.unique_id))
        return io.NodeOutput(found.name, report, ui=ui.PreviewText(report))


class ResumeTraining(io.ComfyNode):
    """A training goes on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaResumeTraining",
            display_name="Gloria Resume Training",
            category=CATEGORY,
            description="Goes on with a training that was stopped, that failed, or whose machine was switched off, "
            "from its last checkpoint and with the settings in its folder. To change settings, queue its Train node "
            "again.",
            inputs=[
                _job_input(),
                io.Boolean.Input(
                    "wait",
                    default=True,
                    tooltip="On: the node follows the training to its end, and ComfyUI does nothing else meanwhile. "
                    "Off: returns at once, and the training goes on by itself.",
                ),
                io.Int.Input(
                    "cards",
                    default=1,
                    min=1,
                    max=64,
                    optional=True,
                    tooltip="Graphics cards that work together; another number than before will do. Raise it only if "
                    "this machine has so many.",
                ),
            ],
            outputs=job_outputs("file_name"),
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: object) -> float:
        """Return something new each time: how the training stands is asked of its folder."""
        return time.time()

    @classmethod
    def execute(cls, job: str, wait: bool, cards: int = 1) -> io.NodeOutput:
        """Go on with the training."""
        found = named(job)
        if shown(found).status.state != "finished":
            free_memory()
            begin(found, cards)
        return told(follow(found, str(cls.hidden.unique_id)) if wait else shown(found), cls)
