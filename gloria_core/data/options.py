"""What a training on footage can be told: one set of options, and presets for the paper's stages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..sampling.chunks import STRIDE
from ..tables import at_least, between, one_of, positive, probability, read_dataclass
from ..types import AnchorRole

ROLES = tuple(str(role) for role in AnchorRole)

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "stage1": {"roles": (), "prefix": 0.0, "needs_audio": True, "balance": "none"},
    "stage2": {"roles": ("global",), "prefix": 0.5, "balance": "none"},
    "stage3": {"roles": ROLES, "prefix": 0.5, "one_type": 1.0, "balance": "anchors"},
    "stage3-both": {"roles": ROLES, "prefix": 0.5, "one_type": 0.0, "balance": "anchors"},
    "character": {"roles": ROLES, "prefix": 0.5, "balance": "none", "held_out": 0.0},
}
"""Options of the stages. Paper: 4.4, 7.2: sound with start images; then the global anchor, and a clean prefix half of
the time; then views or expressions, one type in a batch; then both. ``character``: one person, few clips."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FootageOptions:
    """The ``[task.options]`` table of a training on footage."""

    manifest: str
    """Path of a manifest (.jsonl), or of a folder of clips and pictures; or, where the footage itself is elsewhere, of
    the prepared dataset (a .json of the cache's ``sets``)."""
    cache: str
    """Folder that the dataset was prepared into."""
    weights: str
    """The model: a checkpoint of any kind that the pack reads."""
    preset: str = ""
    """``stage1``, ``stage2``, ``stage3``, ``stage3-both`` or ``character``: other defaults for what follows."""
    attention: str = ""
    """``joint``, ``cached``, or empty for what the weights were made for."""
    audio: str = ""
    """``new`` gives a model without ears a fresh audio branch (stage I)."""
    weights_dtype: str = "fp32"
    """Type that the weights are held in: ``fp32``, or ``bf16`` for half the memory where adapters are trained."""
    batch_size: int = 1
    """Clips in a batch; all have one size and length."""
    frames: tuple[int, ...] = ()
    """Lengths of training clips in pixel frames, 4k + 1; a piece is used at the longest that it has. Empty takes the
    model's own, and three quarters and half of it."""
    seed: int = 0
    """Of a new audio branch and of the order of batches."""
    held_out: float = 0.05
    """Share of the clips that is never trained on, to measure on; at least one where there are four or more."""
    held_out_ids: tuple[str, ...] = ()
    """Ids of the clips that are held out, in place of a share."""
    roles: tuple[str, ...] = ROLES
    """Kinds of anchors that are shown at all."""
    superset: float = 0.75
    """How often an anchor is taken from outside of the training clip, where there is one. Raise it against copied
    poses."""
    min_gap_s: float = 0.5
    """Seconds between a training clip and an anchor from outside of it."""
    lend: bool = True
    """Whether clips of one character lend each other views and expressions."""
    drop_role: float = 0.1
    """Probability that a batch lacks all anchors of a role, for each role."""
    drop_slot: float = 0.1
    """Probability that a batch lacks a slot, for each slot."""
    one_type: float = 0.0
    """Share of batches with views or expressions, not both (the first part of stage III). Paper: 7.2."""
    prefix: float = 0.5
    """Share of batches that go on from clean latents, as the second and later chunks of a video do. Paper: 4.4."""
    prefix_latents: int = 4
    """How many clean latents those are."""
    start_image: float = 0.5
    """Share of the other batches in which the first picture is given."""
    balance: str = "anchors"
    """How clips are drawn: ``anchors`` (views and expressions by the paper's shares), ``category`` (the manifest's
    categories equally often), ``none`` (by weight and length alone)."""
    regularisation: float = 0.2
    """Share of batches of regularisation clips, where there are any."""
    regularisation_weight: float = 1.0
    """What their loss is multiplied by."""
    face_weight: float = 1.0
    """How much more faces count in the loss than the rest; 1 is equal. Needs faces or masks in the manifest."""
    needs_audio: bool = False
    """Whether a dataset without sound is refused."""
    memory_mb: int = 512
    """Encoded footage that is kept in memory."""
    decoder: str = ""
    """Dotted path ``package.module:function`` of what returns a decoder that samples are shown with."""
    vae: str = ""
    """The VAE that samples of Wan weights are shown with: a single file as ComfyUI has it (`wan_2.1_vae.safetensors`,
    `wan2.2_vae.safetensors`), or a folder in Diffusers' layout. Without it and without a decoder none are made."""
    vae_device: str = ""
    """Where the VAE decodes: empty is where the network computes; ``cpu`` needs no room on the card, and minutes."""
    sample_clips: int = 2
    """Clips that are sampled, each from its beginning: held-out ones where there are any. Texts that were prepared as
    sample prompts come on top."""
    sample_steps: int = 8
    """Steps of a sample. Wan weights need 20 or more."""
    sample_seed: int = 0
    """Of the samples' noise, which is the same every time."""
    sample_guidance: float = 1.0
    """How hard samples follow the text; 1 is as trained, and 5 usual for Wan weights, at twice the time."""
    sample_audio_guidance: float = 1.0
    """How hard samples follow the sound; another value than the text's takes one more pass a step."""

    def __post_init__(self) -> None:
        one_of("attention", self.attention, ("", "joint", "cached"))
        one_of("audio", self.audio, ("", "new"))
        one_of("weights_dtype", self.weights_dtype, ("fp32", "bf16"))
        one_of("vae_device", self.vae_device, ("", "cpu"))
        one_of("balance", self.balance, ("anchors", "category", "none"))
        for role in self.roles:
            one_of("roles", role, ROLES)
        at_least("batch_size", self.batch_size, 1)
        at_least("memory_mb", self.memory_mb, 0)
        at_least("prefix_latents", self.prefix_latents, 1)
        at_least("sample_clips", self.sample_clips, 0)
        at_least("sample_steps", self.sample_steps, 1)
        between("sample_seed", self.sample_seed, 0, 2**63)
        between("sample_guidance", self.sample_guidance, -100.0, 100.0)
        between("sample_audio_guidance", self.sample_audio_guidance, -100.0, 100.0)
        between("min_gap_s", self.min_gap_s, 0.0, 1e6)
        positive("face_weight", self.face_weight)
        positive("regularisation_weight", self.regularisation_weight)
        for name in ("held_out", "superset", "drop_role", "drop_slot", "one_type", "prefix", "start_image",
                     "regularisation"):  # fmt: skip
            probability(name, getattr(self, name))
        if self.decoder and self.vae:
            raise ConfigError("Both decoder and vae are given; samples are shown with one of them: take the other out.")
        wrong = [frames for frames in self.frames if frames < 1 or frames % STRIDE != 1]
        if wrong:
            low = max(1, (wrong[0] - 1) // STRIDE * STRIDE + 1)
            raise ConfigError(f"frames has {wrong[0]}; lengths must be 4k+1: use {low} or {low + STRIDE}.")


def read_options(given: Mapping[str, Any]) -> FootageOptions:
    """Return the options that were given, over those of their preset.

    Raises:
        ConfigError: an option or the preset is unknown, or a value breaks its rule.
    """
    preset = given.get("preset", "")
    one_of("preset", str(preset), tuple(PRESETS))
    return read_dataclass(FootageOptions, {**PRESETS[preset], **given}, "task.options")
