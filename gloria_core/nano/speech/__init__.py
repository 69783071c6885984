"""The speech that gloria-nano learns from, is measured with, and talks with in its demo. See README.md beside it."""

from pathlib import Path

FOLDER = Path(__file__).parent

TRAINING_FILES = tuple(FOLDER / f"train_{voice}.ogg" for voice in ("slt", "rms", "awb", "kal16"))
"""One file a voice, mono; about 15 minutes together."""
HELDOUT_FILE = FOLDER / "heldout.ogg"
"""Other sentences, three voices, about 2 minutes; never trained on."""
DEMO_FILE = FOLDER / "demo.flac"
"""The demo's monologue, one voice, about 83 seconds with a resting point at 60; ``demo.txt`` holds the cue times."""


def demo_cues() -> list[tuple[float, str]]:
    """Return the demo's sentences with the second at which each one starts."""
    lines = (FOLDER / "demo.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(" ", 1) for line in lines if line and not line.startswith("#"))
    return [(float(start), text) for start, text in pairs]
