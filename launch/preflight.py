"""Questions that only the `.venv` can answer; `python -m launch.preflight QUESTION` runs there.

The question is a JSON object (`audio`: path or null, `character`: name, number or null), and so is the answer:
`accelerator`: whether torch finds a device for the host; `character`: its bundled name or null; `problem`: a sentence
for the person, or empty.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from . import LaunchError

SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the environment says about the machine and a demo's inputs."""

    accelerator: bool
    character: str | None
    problem: str


def ask(python: Path, root: Path, *, audio: Path | None = None, character: str | None = None) -> Answer:
    """Look for an accelerator and check a demo's inputs, in a child process with the environment's Python.

    Args:
        python: the environment's interpreter.
        root: the repository.
        audio: sound file to try, an absolute path.
        character: name or number (from 1) of a bundled character to look up.

    Raises:
        LaunchError: an input is no good, or the environment does not work.
    """
    question = json.dumps({"audio": str(audio) if audio else None, "character": character})
    command = [str(python), "-m", "launch.preflight", question]
    try:
        child = subprocess.run(
            command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{python} did not answer within {SECONDS:.0f} s. Is the machine very busy?") from None
    if child.returncode:
        last = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise LaunchError(f"The environment {root / '.venv'} is broken ({''.join(last)}). Delete it and run again.")
    answer = Answer(**json.loads(child.stdout.decode().splitlines()[-1]))
    if answer.problem:
        raise LaunchError(answer.problem)
    return answer


def find_character(wanted: str, names: tuple[str, ...]) -> str:
    """Return the bundled name that a name (in any case) or a number from 1 means.

    Raises:
        LaunchError: there is no such character.
    """
    by_name = {name.lower(): name for name in names}
    by_number = {str(number): name for number, name in enumerate(names, 1)}
    found = by_name.get(wanted.strip().lower()) or by_number.get(wanted.strip())
    if found is None:
        raise LaunchError(
            f"--character {wanted}: there is no such character. Use a name ({', '.join(names)}) or a number from 1 to "
            f"{len(names)}."
        )
    return found


def _reply(audio: str | None, character: str | None) -> Answer:
    import torch

    from gloria_core.errors import GloriaError

    accelerator, name = torch.accelerator.is_available(), None
    try:
        if character:
            from gloria_core.nano.characters import BUNDLED

            name = find_character(character, BUNDLED)
        if audio:
            from gloria_core.media import read_audio

            read_audio(Path(audio))
    except GloriaError as problem:
        return Answer(accelerator, name, f"--audio: {problem}")
    except LaunchError as problem:
        return Answer(accelerator, name, str(problem))
    return Answer(accelerator, name, "")


if __name__ == "__main__":
    reply = _reply(**json.loads(sys.argv[1]))
    print(json.dumps({"accelerator": reply.accelerator, "character": reply.character, "problem": reply.problem}))
