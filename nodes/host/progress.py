"""What the page and the queue's clients hear at every step of a long video."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import latent_preview
from PIL import Image
from server import PromptServer
from torch import Tensor

EVENT = "gloria.progress"
"""Name of our event; its fields are those of ``VideoProgress.step``."""

_PREVIEW_PX = 512
_PAUSE_S = 0.05
"""Between two of our events within a chunk, at least."""

InterruptProcessingException = comfy.model_management.InterruptProcessingException


class VideoProgress:
    """The node's progress bar, its preview and our own event.

    Args:
        num_chunks: chunks of the whole video.
        num_steps: solver steps of each.
        node_id: the node that works; the host's execution id.
    """

    def __init__(self, num_chunks: int, num_steps: int, node_id: str) -> None:
        self.num_chunks, self.num_steps, self.node_id = num_chunks, num_steps, node_id
        self._sent = 0.0
        self.bar = comfy.utils.ProgressBar(num_chunks * num_steps, node_id=node_id)

    def step(
        self,
        chunk: int,
        step: int,
        prompt: str,
        *,
        preview: Image.Image | None = None,
        left_s: float | None = None,
    ) -> None:
        """Tell that ``step`` steps (1-based) of a chunk (0-based) are done, and how many seconds may be left.

        Where steps follow each other faster than 20 a second, our own event tells the first and the last of a chunk
        and some between; the bar and the preview hear of every one.

        Raises:
            InterruptProcessingException: the user has asked to stop.
        """
        now = time.monotonic()
        if step in (1, self.num_steps) or now - self._sent >= _PAUSE_S:
            self._sent = now
            self._send(
                {
                    "node": self.node_id,
                    "chunk": chunk + 1,
                    "chunks": self.num_chunks,
                    "step": step,
                    "steps": self.num_steps,
                    "prompt": prompt,
                    "left_s": left_s,
                }
            )
        picture = ("JPEG", preview, _PREVIEW_PX) if preview is not None else None
        self.bar.update_absolute(chunk * self.num_steps + step, self.num_chunks * self.num_steps, picture)

    def _send(self, data: Mapping[str, Any]) -> None:
        server = PromptServer.instance
        server.send_sync(EVENT, dict(data), server.client_id)


def step_previewer(patcher: comfy.model_patcher.ModelPatcher) -> Callable[[Tensor], Image.Image | None]:
    """Return what draws the last picture of a clean guess (B, C, T, h, w), as the user's --preview-method asks for.

    Without one it draws nothing. The last picture tells most: it is the furthest from what is known.
    """
    previewer = latent_preview.get_previewer(patcher.load_device, patcher.model.latent_format)

    def look(x0: Tensor) -> Image.Image | None:
        if previewer is None:
            return None
        picture: Image.Image = previewer.decode_latent_to_preview(x0[:, :, -1:])
        return picture

    return look


def stop_if_interrupted() -> None:
    """Raise InterruptProcessingException where the user has asked to stop."""
    comfy.model_management.throw_exception_if_processing_interrupted()
