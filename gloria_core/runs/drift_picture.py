"""The drift of a run as a picture, drawn from what its run.json says, while it works and afterwards."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ..evaluate.drift import SIMILARITIES
from ..evaluate.plot import PlottedChunk, drift_plot
from .folder import read_json
from .reuse import BRIDGE
from .view import NotThereError

_LONGEST = 120
"""Letters of an embedding's name that are printed."""
_LAST_S = 1e6
_DRAWN = (*SIMILARITIES, "similarity")


def drift_png(run: Path) -> bytes:
    """Return the plot of a run as it is now, as a PNG file; NotThereError where no chunk is finished yet."""
    written = io.BytesIO()
    drift_picture(read_json(run / "run.json"), run.name).save(written, format="png")
    return written.getvalue()


def drift_picture(told: Mapping[str, Any], name: str) -> Image.Image:
    """Draw what a run.json says of drift; whoever wrote it.

    Args:
        told: what it says.
        name: of the run, for the error.

    Raises:
        NotThereError: no chunk is finished yet.
    """
    entries = told.get("chunks")
    found = [_plotted(entry) for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    chunks = sorted((chunk for chunk in found if chunk is not None), key=lambda chunk: chunk.start_s)
    if not chunks:
        raise NotThereError(f"The run {name!r} has no finished chunk yet, so that there is nothing to draw.")
    meter = told.get("meter")
    threshold, embedding = (meter.get("threshold"), meter.get("embedding")) if isinstance(meter, dict) else (0.0, "")
    return drift_plot(
        chunks,
        threshold=_number(threshold, 0.0, 1.0) or 0.0,
        embedding=embedding[:_LONGEST] if isinstance(embedding, str) else "",
    )


def _plotted(entry: Mapping[str, Any]) -> PlottedChunk | None:
    start, end = _number(entry.get("start_s"), 0.0, _LAST_S), _number(entry.get("end_s"), 0.0, _LAST_S)
    if start is None or end is None:
        return None
    drift, inputs = entry.get("drift"), entry.get("inputs")
    numbers = {name: _number(drift.get(name), -1.0, 1.0) for name in _DRAWN} if isinstance(drift, dict) else {}
    return PlottedChunk(
        start_s=start,
        end_s=max(start, end),
        drift={name: value for name, value in numbers.items() if value is not None},
        is_reroll=any((_number(entry.get(name), 0.0, _LAST_S) or 0) > 1 for name in ("attempts", "take")),
        is_bridge=isinstance(inputs, dict) and BRIDGE in inputs,
    )


def _number(value: object, least: float, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return min(max(float(value), least), most)
