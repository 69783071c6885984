"""The model as data: every architectural choice is a field here, and travels in the header of the weights."""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal, Self, TypeVar, get_args, get_origin

from .errors import ConfigError
from .types import EXPRESSIONS, VIEWS, AnchorRole

T = TypeVar("T")


def _from_mapping(cls: type[T], values: dict[str, Any]) -> T:
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"{cls.__name__} has no field {', '.join(unknown)}; it has: {', '.join(sorted(known))}.")
    for f in fields(cls):  # type: ignore[arg-type]
        if f.name in values and not _fits(values[f.name], f.type):
            kind = _KINDS.get(f.type, "of another kind")
            raise ConfigError(f"{cls.__name__}.{f.name} is {str(values[f.name])[:80]!r}; it must be {kind}.")
    return cls(**values)


_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _fits(value: Any, kind: Any) -> bool:  # noqa: ANN401 - parsed JSON and an annotation
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return True  # the class itself knows its choices
    if get_origin(kind) is tuple:
        right_length = parts[-1] is Ellipsis or len(parts) == len(value)
        return right_length and all(_fits(item, parts[0]) for item in value)
    if float in (kind, *parts):
        kind = int | kind
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorConfig:
    """How anchors are placed and attended to. Paper: 4.1; the numbers are ours (the paper's are not public)."""

    mode: Literal["joint", "cached"] = "joint"
    """``joint``: all tokens attend to all. ``cached``: each anchor sees itself alone, so its keys and values are
    computed once for a whole video."""
    timestep: Literal["zero", "shared"] = "zero"
    """``zero``: anchors and the clean prefix carry timestep 0. ``shared``: they carry the video's timestep."""
    global_position: int = 40
    """Temporal RoPE position of the global anchor, in latent frames."""
    view_position: int = 80
    """Temporal RoPE position of the first viewpoint anchor."""
    view_step: int = 40
    """Distance between two viewpoint anchors."""
    expression_position: int = 240
    """Temporal RoPE position of the first expression anchor."""
    expression_step: int = 40
    """Distance between two expression anchors."""

    def __post_init__(self) -> None:
        if self.mode not in ("joint", "cached"):
            raise ConfigError(f"anchors.mode is {self.mode!r}; use 'joint' or 'cached'.")
        if self.timestep not in ("zero", "shared"):
            raise ConfigError(f"anchors.timestep is {self.timestep!r}; use 'zero' or 'shared'.")
        if self.mode == "cached" and self.timestep == "shared":
            raise ConfigError("anchors.mode 'cached' needs anchors.timestep 'zero': no cache follows the timestep.")

    def position(self, role: AnchorRole, slot: str) -> int:
        """Return the temporal RoPE position of a slot, in latent frames."""
        match role:
            case AnchorRole.GLOBAL:
                return self.global_position
            case AnchorRole.VIEW:
                return self.view_position + self.view_step * VIEWS.index(slot)
            case AnchorRole.EXPRESSION:
                return self.expression_position + self.expression_step * EXPRESSIONS.index(slot)

    @property
    def smallest_spacing(self) -> int:
        """The longest chunk, in latent frames, whose distances to two anchors cannot be confused."""
        slots = [(AnchorRole.GLOBAL, "")]
        slots += [(AnchorRole.VIEW, v) for v in VIEWS] + [(AnchorRole.EXPRESSION, e) for e in EXPRESSIONS]
        places = sorted([0, *(self.position(role, slot) for role, slot in slots)])
        return min(b - a for a, b in pairwise(places))


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioConfig:
    """The audio branch. The defaults are Gloria's. Paper: 4.2; the numbers are ours.

    ``checkpoint.audio_branch`` sets the other fields for public weights. Source of those: peers.md section B.
    """

    kind: Literal["mel", "wav2vec2", "wav2vec2-rows", "wav2vec2-layers", "whisper-groups"] = "wav2vec2"
    """Which extractor made the features that the branch was trained on. ``mel``, ``wav2vec2``: one row for each pixel
    frame. ``wav2vec2-rows``: the encoder's own 50 rows a second. ``wav2vec2-layers``: all 12 layers side by side, a row
    for each frame. ``whisper-groups``: five means over groups of Whisper's layers, a row for each frame."""
    feature_dim: int = 1024
    """Width A of one row of features; layers or groups side by side count together."""
    dim: int = 2048
    """Width of an audio token, which the learned projection makes from the features."""
    every: int = 2
    """The branch stands in blocks 0, every, 2 every, ..."""
    window: int = 8
    """Pixel frames that one latent frame hears. Not used with ``wav2vec2-rows``, where the frame rate decides."""
    projection: Literal["gloria", "fantasytalking", "multitalk", "humo"] = "gloria"
    """How windows become tokens. ``gloria``: two layers for each row, and the row's place. ``fantasytalking``: one
    layer and a norm for each row. ``humo``: the whole window together becomes ``tokens`` tokens. ``multitalk``: the
    same, with a first layer of its own for the video's first latent, which hears five frames."""
    tokens: int = 0
    """Tokens that a whole window becomes (``multitalk`` 32, ``humo`` 16); 0 where each row becomes one."""
    hidden: int = 0
    """Width between the layers of such a projection (512); 0 elsewhere."""
    queries: Literal["shared", "own"] = "shared"
    """``shared``: the text attention's normed queries. ``own``: made by the branch."""
    query_norm: bool = False
    """Whether own queries are RMS-normed."""
    key_norm: bool = False
    """Whether keys are RMS-normed."""
    fused: bool = False
    """Whether keys and values come from one matrix, keys first."""
    kv_bias: bool = True
    """Whether keys and values have biases."""
    own_norm: bool = False
    """Whether the branch norms the tokens that its own queries come from; otherwise the text attention's norm does."""
    output: Literal["own", "shared"] = "own"
    """``own``: an output matrix and bias of the branch. ``shared``: the result joins text and image before the text
    attention's output matrix, which equals a copy of that matrix without its bias."""
    placement: Literal["parallel", "sequential"] = "parallel"
    """``parallel``: beside text and image, from the same tokens. ``sequential``: after them, before the FFN."""
    strength: float = 1.0
    """Factor on what the branch adds; 0 is silence."""

    def __post_init__(self) -> None:
        for name, choices in _AUDIO_CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"audio.{name} is {getattr(self, name)!r}; use one of: {', '.join(choices)}.")
        for name in ("feature_dim", "dim", "every", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"audio.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.pools != (self.tokens > 0 and self.hidden > 0):
            raise ConfigError(
                f"audio.tokens is {self.tokens} and audio.hidden {self.hidden} with projection {self.projection!r}; "
                "'multitalk' and 'humo' need both above 0, the others have neither."
            )
        if (self.projection == "fantasytalking") != (self.kind == "wav2vec2-rows"):
            raise ConfigError(
                f"audio.projection is {self.projection!r} and audio.kind {self.kind!r}; 'fantasytalking' and "
                "'wav2vec2-rows' belong together."
            )
        if self.projection == "multitalk" and self.window <= MULTITALK_FIRST:
            raise ConfigError(f"audio.window is {self.window}; 'multitalk' needs more than {MULTITALK_FIRST} frames.")
        if self.placement == "sequential" and (self.queries, self.output) != ("own", "own"):
            raise ConfigError(
                "audio.placement 'sequential' needs queries 'own' and output 'own': text is over by then."
            )
        if self.queries == "shared" and (self.query_norm or self.own_norm):
            raise ConfigError("audio.queries 'shared' are normed already: turn query_norm and own_norm off.")

    @property
    def pools(self) -> bool:
        """Whether a window becomes tokens as a whole."""
        return self.projection in ("multitalk", "humo")

    @property
    def window_dim(self) -> int:
        """Width of one row of a window: the features, and for ``multitalk`` a mark of the video's first latent."""
        return self.feature_dim + (self.projection == "multitalk")


MULTITALK_FIRST = 5
"""Frames that MultiTalk's first latent hears: -2 .. 2."""

_AUDIO_CHOICES = {
    "kind": ("mel", "wav2vec2", "wav2vec2-rows", "wav2vec2-layers", "whisper-groups"),
    "projection": ("gloria", "fantasytalking", "multitalk", "humo"),
    "queries": ("shared", "own"),
    "output": ("own", "shared"),
    "placement": ("parallel", "sequential"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A Gloria transformer. The defaults are Wan 2.1's T2V 1.3B. Source: wan.md section 1."""

    name: str = "gloria"
    """Shown to the user."""
    family: str = "gloria"
    """Which kind of model this is, as people call it: a name of ``families.FAMILIES``, or ``gloria`` for an
    architecture of its own, such as nano's."""
    in_channels: int = 16
    """Channels of the model's input; 36 where a mask (4) and an image latent (16) are concatenated."""
    out_channels: int = 16
    """Channels of the latent."""
    dim: int = 1536
    """Width D of a token."""
    ffn_dim: int = 8960
    """Width of the feed-forward layer."""
    num_heads: int = 12
    """Attention heads N; the head dimension is dim / num_heads."""
    num_layers: int = 30
    """Transformer blocks."""
    patch_size: tuple[int, int, int] = (1, 2, 2)
    """Latent frames, rows and columns in one token."""
    text_dim: int = 4096
    """Width of a row of the text encoder's output."""
    text_length: int = 512
    """Rows of text that the model was trained with; shorter prompts are padded with zero rows."""
    freq_dim: int = 256
    """Width of the timestep's sinusoid."""
    eps: float = 1e-6
    """Added to variances in the norms."""
    clip_dim: int = 0
    """Width of CLIP vision features (1280 in Wan 2.1 I2V); 0 means no image branch."""
    clip_length: int = 257
    """CLIP tokens for each image, used where ``clip_positions`` is set."""
    clip_positions: int = 0
    """Learned positions on CLIP tokens (514 in FLF2V, two images); 0 means none."""
    latent_std: tuple[float, ...] = ()
    """Per-channel standard deviation of clean latents, by which the output is scaled; empty for Wan, whose output is
    the velocity as it is."""
    prediction: Literal["velocity", "clean"] = "velocity"
    """What the scaled output stands for where ``latent_std`` is given: what the best linear guess of the velocity
    leaves over, or the clean latent itself (see ``model.precondition``). Callers see a velocity in any case."""
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    """Placing of anchors and the attention mode."""
    audio: AudioConfig | None = None
    """The audio branch; None means that the model is deaf."""
    codec: str = "wan2.1"
    """Which latent space the model works in: ``wan2.1``, ``wan2.2`` or ``nano``."""
    fps: float = 24.0
    """Frame rate that the model was trained at."""
    chunk_latents: int = 32
    """Latent frames of a training clip, and of a chunk unless the user says otherwise."""
    shift: float = 8.0
    """Shift of the noise schedule unless the user sets another one; above 1, more of the steps are at high noise."""
    boundary: float | None = None
    """Noise level (sigma, 0..1) at and above which the high-noise expert of a pair runs; None for a single model."""
    prefix: Literal["held", "given"] = "held"
    """How a start image, and the clean latents that a chunk begins with, enter. ``held``: as clean tokens at timestep
    0, re-imposed at every step. ``given``: through the mask and image channels of a 36-channel model, which denoises
    those frames too."""
    temporal_stride: int = 4
    """Pixel frames in each latent frame after the first."""
    spatial_stride: int = 8
    """Pixels in one latent row or column."""

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ConfigError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}.")
        if self.head_dim % 2 or self.head_dim < 12:
            raise ConfigError(f"dim / num_heads is {self.head_dim}; RoPE needs an even head of at least 12.")
        if self.patch_size[0] != 1:
            raise ConfigError(f"patch_size {self.patch_size} joins latent frames; the first number must be 1.")
        if self.latent_std and len(self.latent_std) != self.out_channels:
            raise ConfigError(f"latent_std has {len(self.latent_std)} values; give {self.out_channels}, one a channel.")
        if any(s <= 0 for s in self.latent_std):
            raise ConfigError("latent_std holds a value that is not positive; each is a standard deviation.")
        if self.prediction not in ("velocity", "clean"):
            raise ConfigError(f"prediction is {self.prediction!r}; use 'velocity' or 'clean'.")
        if self.prediction == "clean" and not self.latent_std:
            raise ConfigError("prediction 'clean' needs latent_std, the spread of each channel of the latent.")
        self._check_prefix_and_boundary()
        if self.shift <= 0:
            raise ConfigError(f"shift is {self.shift}; it must be above 0 (1 leaves the noise levels evenly spaced).")
        if self.chunk_latents > self.anchors.smallest_spacing:
            raise ConfigError(
                f"chunk_latents is {self.chunk_latents}, but two anchors stand only {self.anchors.smallest_spacing} "
                "positions apart: a longer chunk would confuse them. Space the anchors wider or shorten the chunk."
            )

    def _check_prefix_and_boundary(self) -> None:
        if self.prefix not in ("held", "given"):
            raise ConfigError(f"prefix is {self.prefix!r}; use 'held' or 'given'.")
        if self.prefix == "given" and not self.has_image_channels:
            raise ConfigError(
                f"prefix is 'given', but a model with {self.in_channels} input channels for {self.out_channels} of the "
                "latent has no mask and image channels to give it through; use 'held'."
            )
        if self.boundary is not None and not 0 < self.boundary < 1:
            raise ConfigError(f"boundary is {self.boundary}; it is a noise level between 0 and 1, such as 0.9.")

    @property
    def head_dim(self) -> int:
        """Width K of one attention head."""
        return self.dim // self.num_heads

    @property
    def has_image_channels(self) -> bool:
        """Whether the input carries a mask and an image latent behind the noisy latent (Wan I2V)."""
        return self.in_channels > self.out_channels

    def with_mode(self, mode: Literal["joint", "cached"]) -> Self:
        """Return the same model in another attention mode."""
        return replace(self, anchors=replace(self.anchors, mode=mode))

    def to_json(self) -> str:
        """Return the configuration as JSON text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> "ModelConfig":
        """Build a configuration from parsed JSON or TOML; unknown names raise ConfigError."""
        values = dict(values)
        if isinstance(values.get("anchors"), dict):
            values["anchors"] = _from_mapping(AnchorConfig, values["anchors"])
        if isinstance(values.get("audio"), dict):
            values["audio"] = _from_mapping(AudioConfig, values["audio"])
        for name in ("patch_size", "latent_std"):
            if name in values:
                if not isinstance(values[name], list | tuple):
                    raise ConfigError(f"{cls.__name__}.{name} is {values[name]!r}; it must be a list of numbers.")
                values[name] = tuple(values[name])
        return _from_mapping(cls, values)

    @classmethod
    def from_json(cls, text: str) -> "ModelConfig":
        """Build a configuration from JSON text; text that is not a JSON object raises ConfigError."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"The model's configuration is not JSON: {error}.") from error
        if not isinstance(values, dict):
            raise ConfigError(f"The model's configuration is a {type(values).__name__}; a JSON object is needed.")
        return cls.from_mapping(values)
