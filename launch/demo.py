"""The demo: the example workflow through a private host, one live line, one film."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import LaunchError
from .client import Client, Json, PromptError
from .console import LiveLine, Waiting, clock
from .environment import PRIVATE, ROOT, prepare
from .preflight import ask
from .process import require_file
from .server import Server, Settings, choose_port, running, wait_until_ready

WORKFLOW = ROOT / "example_workflows" / "api" / "gloria_minute.json"
OUTPUT = ROOT / "output" / "gloria-demo.mp4"
LOG = PRIVATE / "logs" / "demo.log"
STALE_SECONDS = 2 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a person may ask of the demo."""

    audio: Path | None = None
    """Speech to use instead of the bundled one."""

    seconds: float = 60.0
    """Length of the film, above 0."""

    seed: int | None = None
    """Seed of the noise, 0 or above; the workflow's own if None."""

    character: str | None = None
    """Name or number of a bundled character; the workflow's own if None."""

    plain: bool = False
    """Leave out the strip of anchors beside the picture."""

    comfyui: Path | None = None
    """The user's own ComfyUI."""

    out: Path = OUTPUT
    """Where the film goes."""

    port: int | None = None
    """Port of the host; a free one if None."""


def check(options: Options) -> None:
    """Refuse what can be seen to be wrong before anything is set up.

    Raises:
        LaunchError: a value is out of range, a file is missing, or the port is taken.
    """
    if not 0 < options.seconds < float("inf"):
        raise LaunchError(f"--seconds {options.seconds:g}: a film is longer than 0 s. Try --seconds 10.")
    if options.seed is not None and not 0 <= options.seed < 2**64:
        raise LaunchError(f"--seed {options.seed}: a seed is a number from 0 to {2**64 - 1}. Try --seed 1.")
    if options.audio is not None:
        require_file(options.audio, "--audio")
    if options.out.suffix.lower() != ".mp4":
        raise LaunchError(f"--out {options.out}: the demo writes MP4. Give a name that ends in .mp4.")
    if options.port is not None:
        choose_port(options.port)


def patch(workflow: Mapping[str, Json], values: Mapping[str, Any]) -> dict[str, Json]:
    """Return API JSON with the named inputs set, in our nodes and in LoadAudio, wherever they are values and not links.

    Args:
        workflow: node id to `{"class_type", "inputs"}`; it is left as it is.
        values: input name to value.

    Raises:
        LaunchError: no node has such an input.
    """
    prompt: dict[str, Json] = copy.deepcopy(dict(workflow))
    for name, value in values.items():
        places = [
            node["inputs"]
            for node in prompt.values()
            if node["class_type"].startswith(("Gloria", "LoadAudio")) and _is_value(node["inputs"].get(name))
        ]
        if not places:
            raise LaunchError(f"The example workflow {WORKFLOW.name} has no input named {name}; it cannot be set.")
        for inputs in places:
            inputs[name] = value
    return prompt


def _is_value(entry: object) -> bool:
    return entry is not None and not isinstance(entry, list)  # a list is a link to another node


@dataclass(slots=True)
class Progress:
    """Turns the host's events into one line about the film."""

    line: LiveLine
    begun: float = field(default_factory=time.monotonic)
    first: tuple[float, float] | None = None
    """Time and fraction of the first report: the speed is measured from there, without the loading before it."""

    def hear(self, event: str, data: Json) -> None:
        """Show an event if it is about progress."""
        if event == "gloria.progress":
            self.line.show(self.describe(data, time.monotonic()))

    def describe(self, data: Json, now: float) -> str:
        """Return the line for a report `{"chunk", "chunks", "step", "steps"}`, chunk and step counted from 1."""
        chunk, chunks, step, steps = (int(data[name]) for name in ("chunk", "chunks", "step", "steps"))
        done = (chunk - 1 + min(step, steps) / max(steps, 1)) / max(chunks, 1)
        text = f"chunk {chunk} of {chunks}, step {step} of {steps}, {clock(now - self.begun)} elapsed"
        if self.first is None or self.first[1] > done:
            self.first = (now, done)
        began, before = self.first
        if done - before < 1e-6 or now - began < 1.0:
            return text
        return f"{text}, about {clock((now - began) * (1 - done) / (done - before))} left"


def films(entry: Json) -> list[tuple[str, str]]:
    """Return (subfolder, file name) of every MP4 that a run says it saved to the output folder, in its order."""
    found: list[tuple[str, str]] = []
    for outputs in entry.get("outputs", {}).values():
        for items in outputs.values():
            for item in items if isinstance(items, list) else ():
                saved = isinstance(item, dict) and item.get("type") == "output"
                if saved and str(item.get("filename")).endswith(".mp4"):
                    found.append((item.get("subfolder") or "", item["filename"]))
    return found


@contextmanager
def working_folder() -> Iterator[Path]:
    """Give a private folder that is gone afterwards, and sweep up what a killed run left days ago."""
    runs = PRIVATE / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for old in runs.iterdir():
        if time.time() - old.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="demo-", dir=runs))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(options: Options) -> Path:
    """Make the film and return its path.

    Raises:
        LaunchError: any failure, as a sentence; nothing is left behind.
    """
    check(options)
    if not WORKFLOW.is_file():
        raise LaunchError(f"The example workflow {WORKFLOW} is missing. Get the repository again.")
    environment = prepare(own_host=options.comfyui)
    audio = options.audio.expanduser().resolve() if options.audio else None
    with Waiting("Checking the inputs"):
        answer = ask(environment.python, ROOT, audio=audio, character=options.character)
    with working_folder() as base:
        values = _values(options, answer.character, _bring_audio(audio, base))
        prompt = patch(json.loads(WORKFLOW.read_text(encoding="utf-8")), values)
        # Nano's matrices are small: on a busy machine a second thread waits more than it works (10 times slower).
        threads = None if answer.accelerator or "OMP_NUM_THREADS" in os.environ else 1
        settings = Settings(base=base, log=LOG, cpu=not answer.accelerator, port=options.port, threads=threads)
        with running(environment, settings) as server:
            with Waiting("Starting ComfyUI") as waiting:
                wait_until_ready(server, waiting.tick)
            film = _film(server, prompt, base)
        return _deliver(film, options.out)


def _values(options: Options, character: str | None, audio: str | None) -> dict[str, Any]:
    """Return the inputs of the workflow that the options set."""
    layout = "plain" if options.plain else None
    wanted = {"seconds": options.seconds, "layout": layout, "seed": options.seed, "character": character}
    return {name: value for name, value in {**wanted, "audio": audio}.items() if value is not None}


def _bring_audio(audio: Path | None, base: Path) -> str | None:
    """Copy a sound file to the host's input folder and return its name there."""
    if audio is None:
        return None
    name = f"speech{audio.suffix.lower()}"
    (base / "input").mkdir()
    shutil.copyfile(audio, base / "input" / name)
    return name


def _film(server: Server, prompt: dict[str, Json], base: Path) -> Path:
    """Run the prompt and return the file it made."""
    client = Client(server.url)
    with LiveLine() as line:
        progress = Progress(line)
        line.show("Loading the model")
        try:
            entry = client.run(prompt, progress.hear, server.require_alive)
        except KeyboardInterrupt:
            client.interrupt()
            raise
        line.close(f"Finished after {clock(time.monotonic() - progress.begun)}")
    made = films(entry)
    if not made:
        raise PromptError("The workflow ran but saved no MP4. Does it still end in a node that saves a video?")
    folder, name = made[-1]
    return base / "output" / folder / name


def _deliver(film: Path, target: Path) -> Path:
    """Move a finished film to its place in one step."""
    target = target.expanduser().resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.part")
        try:
            shutil.move(film, partial)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as problem:
        raise LaunchError(f"The film cannot be put at {target}: {problem}. Choose another --out.") from None
    return target
