"""What is wrong with footage: where, what, and what a person can do about it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a dataset."""

    where: str
    """The file, the clip, or the dataset itself, as a person finds it again."""
    what: str
    """The rule that is broken, and the value that breaks it."""
    fix: str
    """What to do about it."""
    stops: bool = False
    """Whether the footage, or that clip, cannot be trained on as it is."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.fix}."


def told(problems: Sequence[Problem], shown: int = 100) -> str:
    """Return problems as lines of text, those that stop a training first; what is beyond ``shown`` is counted."""
    ordered = sorted(problems, key=lambda problem: not problem.stops)
    lines = [f"{'STOPS' if problem.stops else 'note '}  {problem}" for problem in ordered[:shown]]
    return "\n".join(lines + ([f"and {len(ordered) - shown} more"] if len(ordered) > shown else []))
