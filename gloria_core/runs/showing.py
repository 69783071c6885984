"""How the frames of a video are shown, and by what an encoded chunk is known again."""

from collections.abc import Callable, Sequence
from itertools import groupby

from ..media.layout import LabelledPicture, Layout
from ..sampling.chunks import Chunk
from .digest import digest_of
from .job import Frames


class Showing:
    """Lays out the frames of one video.

    Args:
        layout: lays out frames.
        what: digest of all that the layout depends on: its name and settings.
        vae: digest of the VAE's weights.
        pictures: the anchors' pictures that the layout shows; none where it shows none.
        chunks: the whole plan.
        prompt: gives the text that a chunk is made with.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        what: Sequence[object],
        vae: str,
        pictures: Sequence[LabelledPicture],
        chunks: Sequence[Chunk],
        prompt: Callable[[Chunk], str],
    ) -> None:
        self.layout = layout
        self._what, self._vae = list(what), vae
        self._pictures = [digest_of([p.role, p.slot], p.picture) for p in pictures]
        self._texts = [prompt(chunk) for chunk in chunks]
        self._set_up: int | None = None

    def look(self, chunk: Chunk) -> str:
        """Tell what a chunk's frames in the film depend on beside the decoded ones."""
        self._set_up = None
        return digest_of(self._vae, self._what, self._pictures, self.layout.after(self._before(chunk)))

    def show(self, frames: Frames, chunk: Chunk, prompt: str) -> Frames:
        """Lay out decoded frames (n, H, W, 3) of a chunk."""
        if self._set_up != chunk.index:
            self.layout.after(self._before(chunk))
            self._set_up = chunk.index
        return self.layout(frames, prompt)

    def _before(self, chunk: Chunk) -> list[str]:
        """Return the texts before a chunk, each once where it follows itself."""
        return [text for text, _ in groupby(self._texts[: chunk.index])]
