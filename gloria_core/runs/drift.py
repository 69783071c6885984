"""How the drift of a run is measured."""

from collections.abc import Sequence

from ..evaluate.drift import DriftMeter
from ..evaluate.embedding import Embedding
from ..media.layout import LabelledPicture
from ..types import AnchorRole
from .job import Drift


def drift_against(
    pictures: Sequence[LabelledPicture], *, threshold: float, tries: int, embedding: Embedding | None = None
) -> Drift:
    """Return the drift of a video against all of the character's pictures.

    Args:
        pictures: the anchors' pictures.
        threshold: chunks less similar than this are sampled again; 0 never does that.
        tries: how often at most.
        embedding: what compares pictures; the bundled one if not given.
    """
    main = next((p for p in pictures if p.role == AnchorRole.GLOBAL), None)
    others = [p.picture for p in pictures if p is not main]
    meter = DriftMeter(None if main is None else main.picture, embedding, more=others)
    return Drift(meter=meter, threshold=threshold, tries=tries, embedding=meter.embedding.name)
