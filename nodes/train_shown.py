"""What the nodes that show a training have in common: their outputs, and what the page keeps of them."""

from .host.api import io, ui
from .host.training import Followed, say, video_or_nothing

CATEGORY = "Gloria/training"
"""Where the nodes are listed."""


def job_outputs(file: str) -> list[io.Output]:
    """Return the outputs of the nodes that show a training."""
    return [
        io.String.Output(display_name="job", tooltip="The training's name, for Watch, Stop and Resume."),
        io.String.Output(
            display_name=file, tooltip="What it has written, as the loaders list it; empty before the end."
        ),
        io.Image.Output(display_name="plot", tooltip="The loss over the steps, and the held-out loss."),
        io.Image.Output(display_name="samples", tooltip="The latest sheet: true frames above what the model makes."),
        io.String.Output(display_name="report", tooltip="How it stands, in words."),
        io.Video.Output(
            display_name="film",
            tooltip="The latest samples as a film with sound, the true clips on the left, for Gloria Preview Video. "
            "What follows waits while there is none.",
        ),
    ]


def told(followed: Followed, node: type[io.ComfyNode]) -> io.NodeOutput:
    """Return what a node gives that shows a training; its panel on the page shows the rest."""
    if followed.file:  # how the finished file was checked stands nowhere else
        say(followed.report, str(node.hidden.unique_id))
    shown = ui.PreviewText(followed.report).as_dict() | {"gloria_training": [followed.view]}
    pictures = (followed.plot, followed.sheet)
    return io.NodeOutput(
        followed.job.name, followed.file, *pictures, followed.report, video_or_nothing(followed.film), ui=shown
    )
