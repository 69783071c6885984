"""What a chunk is made from, by digest: who has the same weights, words and pictures finds the same finished chunks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from ..config import ModelConfig
from ..types import AnchorSet
from .chunk_file import Ingredient
from .digest import digest_of, digest_of_weights

_DEEP = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelPart:
    """One network of a video."""

    config: ModelConfig
    weights: str
    """Digest of its weights by the core's names, in the types of their file (``digest_of_weights``)."""
    changes: Sequence[Any] = field(default_factory=list)
    """What else changes its output, such as LoRAs, as `plain` tells it; empty where nothing does."""


def model_ingredient(*parts: ModelPart) -> Ingredient:
    """Return what a model, or a pair of experts, is."""
    told = [[part.weights, part.config.to_json(), list(part.changes)] for part in parts]
    return Ingredient(digest_of(told), " and ".join(part.config.name for part in parts))


def solver_ingredient(name: str, sigmas: Tensor, options: Sequence[Any] = ()) -> Ingredient:
    """Return what a solver (with options of its own, as `plain` tells them) and its noise levels are."""
    return Ingredient(digest_of(name, list(options), sigmas.float()), f"{name}, {len(sigmas) - 1} steps")


def text_digest(*rows: tuple[Tensor, Mapping[str, Any]]) -> str:
    """Return the digest of encoded text: rows (B, L, D), each with what rides on it; None rides as nothing."""
    return digest_of([[plain(row), plain({k: v for k, v in rides.items() if v is not None})] for row, rides in rows])


def anchors_ingredient(anchors: AnchorSet) -> Ingredient:
    """Return what a set of anchors is, and how each is attached."""
    parts = [plain({each.name: getattr(anchor, each.name) for each in fields(anchor)}) for anchor in anchors]
    return Ingredient(digest_of(sorted(parts, key=str)), ", ".join(anchor.name for anchor in anchors) or "none")


def common_ingredients(
    *,
    shape: tuple[int, int, int, int],
    size: tuple[int, int],
    negative: str | None = None,
    boundary: float | None = None,
    prefix_noise: float = 0.0,
    colour_guard: float = 0.0,
) -> dict[str, Ingredient]:
    """Return what all chunks of a video have in common beside the model and the solver.

    Args:
        shape: (B, C, h, w) of the latents.
        size: width and height of the frames.
        negative: digest of the negative prompt; None where there is none.
        boundary: noise level at which a second expert takes over; None where there is one network.
        prefix_noise: noise level at which a prefix is shown.
        colour_guard: strength of the guard.
    """
    found = {"size": Ingredient(digest_of(shape), f"{size[0]} x {size[1]}")}
    if boundary is not None:
        found["boundary"] = _number(boundary)
    if negative is not None:
        found["negative prompt"] = Ingredient(negative)
    if prefix_noise:
        found["prefix noise"] = _number(prefix_noise)
    if colour_guard:
        found["colour guard"] = _number(colour_guard)
    return found


def plain(value: Any, depth: int = 0) -> Any:  # noqa: ANN401 - anything in, what JSON can say out
    """Describe a value: tensors by digest, functions by name, objects by class and contents as deep as that is sane."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return digest_of_weights([("", value)])
    for kind, describe in _KINDS:
        if isinstance(value, kind):
            return describe(value, depth + 1)
    if callable(value) and hasattr(value, "__qualname__"):
        return value.__qualname__
    if isinstance(value, nn.Module) or depth > _DEEP:
        return type(value).__qualname__
    if is_dataclass(value):
        contents: Mapping[str, Any] = {each.name: getattr(value, each.name) for each in fields(value)}
    else:
        contents = getattr(value, "__dict__", {})
    return [type(value).__qualname__, {name: plain(inner, depth + 1) for name, inner in sorted(contents.items())}]


_KINDS: tuple[tuple[Any, Callable[[Any, int], Any]], ...] = (
    (range, lambda value, _depth: [value.start, value.stop, value.step]),
    (Mapping, lambda value, depth: {str(key): plain(inner, depth) for key, inner in value.items()}),
    (set | frozenset, lambda value, depth: sorted(str(plain(inner, depth)) for inner in value)),
    (list | tuple, lambda value, depth: [plain(inner, depth) for inner in value]),
)


def _number(value: float) -> Ingredient:
    return Ingredient(str(value), f"{value:g}")
