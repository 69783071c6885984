"""GloriaDiT: Wan's video transformer with content anchors and an audio branch. Paper: 4; numerics: wan.md section 1."""

from dataclasses import replace
from itertools import groupby
from math import prod
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import AnchorError, PlanError
from ..protocols import Attention, Operations
from ..types import Anchor, AnchorSet
from .attention import choose_attention
from .audio import make_audio_embedding
from .bias import AttentionBias, anchor_bias
from .blocks import KV, Block, Conditions, Head, repeat_batch
from .cache import AnchorCache
from .embed import ClipEmbedding, anchor_input, pad_to_patch, sinusoid, unpatchify
from .modulation import Modulation
from .norm import computing_dtype
from .precondition import best_guess, from_clean
from .rope import Rope, rope


class GloriaDiT(nn.Module):
    """Predicts the velocity (noise - clean) of noisy video latents.

    Args:
        config: the architecture.
        operations: namespace of layers (Linear, LayerNorm, RMSNorm, Conv3d, Embedding); the host lends its own.
        attention: the attention callable; the best that this machine has where None.
        device: where the weights are made (``meta`` for none).
        dtype: type of the weights.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        operations: Operations = nn,
        attention: Attention | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        attention = attention or choose_attention().attend
        self.config, self.dtype = config, dtype or torch.get_default_dtype()
        self.patch_size = config.patch_size
        self.patch_embedding = operations.Conv3d(
            config.in_channels,
            config.dim,
            kernel_size=config.patch_size,
            stride=config.patch_size,
            device=device,
            dtype=torch.float32 if dtype is not None else None,
        )
        self.text_embedding = nn.Sequential(
            operations.Linear(config.text_dim, config.dim, **factory),
            nn.GELU(approximate="tanh"),
            operations.Linear(config.dim, config.dim, **factory),
        )
        self.time_embedding = nn.Sequential(
            operations.Linear(config.freq_dim, config.dim, **factory),
            nn.SiLU(),
            operations.Linear(config.dim, config.dim, **factory),
        )
        self.time_projection = nn.Sequential(nn.SiLU(), operations.Linear(config.dim, config.dim * 6, **factory))
        self.img_emb = (
            ClipEmbedding(config.clip_dim, config.dim, config.clip_positions, operations, factory)
            if config.clip_dim
            else None
        )
        self.audio_embedding = make_audio_embedding(config.audio, operations, factory) if config.audio else None
        self.blocks = nn.ModuleList(
            Block(
                config,
                attention,
                operations,
                factory,
                hears=config.audio is not None and index % config.audio.every == 0,
            )
            for index in range(config.num_layers)
        )
        self.head = Head(config, operations, factory)

    def forward(  # noqa: PLR0913 - the first six are the host's
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        clip_fea: Tensor | None = None,
        time_dim_concat: Tensor | None = None,
        transformer_options: dict[str, Any] | None = None,
        *,
        anchors: AnchorSet | None = None,
        num_prefix: int = 0,
        prefix_timestep: float = 0.0,
        audio: Tensor | None = None,
        cache: AnchorCache | None = None,
        **_unused: object,
    ) -> Tensor:
        """Predict the velocity.

        Args:
            x: latents (B, C_in, T, h, w); the first ``num_prefix`` frames are the prefix.
            timestep: one for each clip (B,), latent frame (B, T) or token (B, T*h*w / patch), in 0..1000; the prefix
                is at ``prefix_timestep`` whatever is given for it.
            context: rows of text (B, L, text_dim); padded with zero rows to the trained length, never cut.
            clip_fea: CLIP vision tokens (B, 257, 1280), or of a first and a last image (B, 514, 1280) or
                (2B, 257, 1280); without them the image branch is left out.
            time_dim_concat: extra latent frames put behind ``x`` (the host's own references), cut off again.
            transformer_options: the host's options; ``patches_replace`` for double blocks and ``rope_options`` are
                obeyed.
            anchors: the character's anchors; their batch divides B, and clip b uses row b // (B / Ba). Strengths and
                hidings are between them and the video's tokens; among each other anchors see what they always see.
            num_prefix: latent frames at the start of ``x`` that are not generated.
            prefix_timestep: 0 where the prefix is clean, 1000 sigma where it is shown noised.
            audio: windows of features (B, T, W, A); zeros mean "no audio", None skips the branch.
            cache: keeps keys and values of anchors (a video long) and prefix (a chunk long) in the cached mode.

        Returns:
            (B, C_out, T, h, w); zero on the prefix.

        Raises:
            AnchorError: the anchors' batch does not divide B, or their channels are not the latent's.
            PlanError: the prefix leaves nothing to generate, or the timesteps fit neither frames nor tokens.
        """
        batch, _, frames, height, width = x.shape
        if not 0 <= num_prefix < frames:
            raise PlanError(f"The prefix is {num_prefix} latent frames of {frames}; at least one must be left to make.")
        if anchors is not None and len(anchors):
            self._check_anchors(anchors, batch)
        sequence = x if time_dim_concat is None else torch.cat([x, time_dim_concat.to(x)], dim=2)
        sequence = pad_to_patch(sequence, self.patch_size).to(computing_dtype(x))
        given = Conditions(
            text=self.text_embedding(self._padded_text(context)),
            image=self._embedded_images(clip_fea, batch, sequence.dtype),
            audio=self._embedded_audio(audio, batch, frames, sequence.dtype),
            options=transformer_options or {},
        )
        steps = self._steps(timestep, frames, sequence.shape[2:], num_prefix, prefix_timestep)
        heeded = tuple(anchor for anchor in anchors or () if anchor.strength > 0)
        if self.config.anchors.mode == "cached":
            output = self._cached(sequence, steps, given, heeded, num_prefix, prefix_timestep, cache)
        else:
            output = self._joint(sequence, steps, given, heeded)
        output = output[:, :, :frames, :height, :width]
        if self.config.latent_std:
            turn = from_clean if self.config.prediction == "clean" else best_guess
            output = turn(output, x, timestep, self.config.latent_std, self.patch_size)
        if num_prefix:
            output = torch.cat([torch.zeros_like(output[:, :, :num_prefix]), output[:, :, num_prefix:]], dim=2)
        return output

    def _joint(self, x: Tensor, steps: Tensor, given: Conditions, anchors: tuple[Anchor, ...]) -> Tensor:
        """Run video and anchors as one sequence in which all see all (the paper's way)."""
        grid = self._grid(x)
        tables, lengths = [self._video_rope(0, grid, given, x.device)], self._run_lengths(steps, grid)
        inputs = [anchor_input(anchor.latent, self.config, x) for anchor in anchors]
        for anchor, latent in zip(anchors, inputs, strict=True):
            size = self._grid(latent)
            tables.append(self._rope(self.config.anchors.position(anchor.role, anchor.slot), size, x.device))
            shared = self.config.anchors.timestep == "shared"
            steps = torch.cat([steps, steps[:, -1:] if shared else torch.zeros_like(steps[:, :1])], dim=1)
            lengths.append(prod(size))
        time, modulation = self._modulation(steps, lengths, x.dtype)
        heard = given.audio.shape[1] * grid[1] * grid[2] if given.audio is not None else 0
        bias = self._bias(anchors, x, biases_all=False)
        given = replace(given, num_audio_tokens=heard, bias=bias)
        out = self._run_blocks(self._sequence(x, inputs), modulation, torch.cat(tables), None, given)
        return unpatchify(self.head(out, time)[:, : prod(grid)], grid, self.patch_size)

    def _cached(
        self,
        x: Tensor,
        steps: Tensor,
        given: Conditions,
        anchors: tuple[Anchor, ...],
        num_prefix: int,
        prefix_timestep: float,
        cache: AnchorCache | None,
    ) -> Tensor:
        """Run clean tokens first (each anchor alone, then the prefix), then the video, which looks at all of them."""
        foreign = self._anchor_kv(anchors, x, cache)  # one list of KV for each block
        if num_prefix:
            seen = tuple((id(a.latent), a.name, a.strength, a.hidden) for a in anchors)
            key = (num_prefix, len(x), prefix_timestep, seen)
            prefix = cache.prefix(key) if cache else None
            if prefix is None:
                start = x[:, :, :num_prefix]
                table = self._video_rope(0, self._grid(start), given, x.device)
                bias = self._bias(anchors, start)
                prefix = self._encode_clean(self._patchify(start), table, foreign, prefix_timestep, bias)
                if cache:
                    cache.keep_prefix(key, prefix)
            foreign = [[*kvs, kv] for kvs, kv in zip(foreign, prefix, strict=True)]
            steps = steps[:, num_prefix * steps.shape[1] // x.shape[2] :]
            x = x[:, :, num_prefix:]
        grid = self._grid(x)
        time, modulation = self._modulation(steps, self._run_lengths(steps, grid), x.dtype)
        audio = given.audio[:, num_prefix:] if given.audio is not None else None
        heard = audio.shape[1] * grid[1] * grid[2] if audio is not None else 0
        bias = self._bias(anchors, x, num_prefix)
        given = replace(given, audio=audio, num_audio_tokens=heard, bias=bias)
        table = self._video_rope(num_prefix, grid, given, x.device)
        out = self._run_blocks(self._patchify(x), modulation, table, foreign, given)
        out = unpatchify(self.head(out, time), grid, self.patch_size)
        return torch.nn.functional.pad(out, (0, 0, 0, 0, num_prefix, 0))

    def _anchor_kv(self, anchors: tuple[Anchor, ...], x: Tensor, cache: AnchorCache | None) -> list[list[KV]]:
        """Return, for each block, the keys and values of every anchor; anchors of one size are encoded together."""
        foreign: list[list[KV]] = [[] for _ in self.blocks]
        kept: dict[int, list[KV]] = {}
        places = [self.config.anchors.position(a.role, a.slot) for a in anchors]
        missing = []
        for index, (anchor, place) in enumerate(zip(anchors, places, strict=True)):
            known = cache.anchor(anchor.latent, place) if cache else None
            if known is None:
                missing.append(index)
            else:
                kept[index] = known
        by_size = sorted(missing, key=lambda i: tuple(anchors[i].latent.shape[-2:]))
        for _, group in groupby(by_size, key=lambda i: tuple(anchors[i].latent.shape[-2:])):
            indices = list(group)
            kept.update(self._encode_anchors([anchors[i] for i in indices], [places[i] for i in indices], indices, x))
        if cache:
            for index in missing:
                cache.keep_anchor(anchors[index].latent, places[index], kept[index])
        for index in range(len(anchors)):
            for kvs, kv in zip(foreign, kept[index], strict=True):
                kvs.append(kv)
        return foreign

    def _encode_anchors(
        self, anchors: list[Anchor], places: list[int], indices: list[int], x: Tensor
    ) -> dict[int, list[KV]]:
        latents = torch.stack([anchor_input(a.latent, self.config, x) for a in anchors], dim=1)  # (Ba, n, C, 1, h, w)
        rows = latents.flatten(0, 1)
        tables = [self._rope(place, self._grid(rows), x.device) for place in places]
        batch = latents.shape[0]
        table = torch.stack(tables).repeat(batch, 1, 1)  # (Ba*n, L, K/2): every row turns by its anchor's position
        blocks = self._encode_clean(self._patchify(rows), table, [[] for _ in self.blocks])
        split = [
            [(k.unflatten(0, (batch, -1))[:, i], v.unflatten(0, (batch, -1))[:, i]) for k, v in blocks]
            for i in range(len(anchors))
        ]
        return dict(zip(indices, split, strict=True))

    def _encode_clean(
        self,
        tokens: Tensor,
        table: Rope,
        foreign: list[list[KV]],
        timestep: float = 0.0,
        bias: AttentionBias | None = None,
    ) -> list[KV]:
        """Run tokens at a timestep through the blocks without text or audio; return their keys and values."""
        steps = torch.full((1, 1), timestep, dtype=torch.float32, device=tokens.device)
        _, modulation = self._modulation(steps, [tokens.shape[1]], tokens.dtype)
        blocks: list[KV] = []
        for block, kvs in zip(self.blocks, foreign, strict=True):
            tokens, k, v = block(tokens, modulation, table, kvs, Conditions(bias=bias), gives_kv=True)
            blocks.append((k, v))
        return blocks

    def _bias(
        self, anchors: tuple[Anchor, ...], x: Tensor, num_prefix: int = 0, *, biases_all: bool = True
    ) -> AttentionBias | None:
        """Return the bias of the video's tokens x towards anchors; ``num_prefix`` frames before x stand behind them.

        Where anchors are queries too, ``biases_all`` is False.
        """
        frames, height, width = self._grid(x)
        lengths = [prod(self._grid(anchor.latent)) for anchor in anchors]
        return anchor_bias(
            anchors,
            lengths,
            frames=range(num_prefix, num_prefix + frames),
            per_frame=height * width,
            num_others=0 if biases_all else sum(lengths),
            num_behind=num_prefix * height * width,
            like=x,
        )

    def _run_blocks(
        self, x: Tensor, modulation: Modulation, table: Rope, foreign: list[list[KV]] | None, given: Conditions
    ) -> Tensor:
        replacements = given.options.get("patches_replace", {}).get("dit", {})
        for index, block in enumerate(self.blocks):
            kvs = foreign[index] if foreign else []
            replacement = replacements.get(("double_block", index))
            if replacement is None:
                x = block(x, modulation, table, kvs, given)
                continue

            def original(args: dict[str, Any], block: nn.Module = block, kvs: list[KV] = kvs) -> dict[str, Tensor]:
                changed = replace(given, text=args["txt"], options=args["transformer_options"])
                return {"img": block(args["img"], modulation, args["pe"], kvs, changed)}

            state = {"img": x, "txt": given.text, "vec": modulation, "pe": table, "transformer_options": given.options}
            x = replacement(state, {"original_block": original})["img"]
        return x

    def _grid(self, x: Tensor) -> tuple[int, int, int]:
        """Return how many tokens latents (B, C, T, h, w) become along time, height and width."""
        t, h, w = (-(-side // patch) for side, patch in zip(x.shape[2:], self.patch_size, strict=True))
        return t, h, w

    def _patchify(self, x: Tensor) -> Tensor:
        tokens = self.patch_embedding(pad_to_patch(x, self.patch_size).float()).to(x.dtype)
        return rearrange(tokens, "b d t h w -> b (t h w) d").contiguous()

    def _sequence(self, x: Tensor, anchors: list[Tensor]) -> Tensor:
        """Return the tokens of a video and its anchors; nobody else holds them, so that the blocks can free them."""
        video = self._patchify(x)
        if not anchors:
            return video
        return torch.cat([video, *(repeat_batch(self._patchify(latent), len(x)) for latent in anchors)], dim=1)

    def _rope(self, start: int, grid: tuple[int, int, int], device: torch.device) -> Rope:
        return rope(self.config.head_dim, start, grid, device)

    def _video_rope(self, start: int, grid: tuple[int, int, int], given: Conditions, device: torch.device) -> Rope:
        """Return the video's rotations, stretched and moved as the host's RoPE node asks; anchors keep their places."""
        asked = given.options.get("rope_options") or {}
        scale = (asked.get("scale_t", 1.0), asked.get("scale_y", 1.0), asked.get("scale_x", 1.0))
        shift = (asked.get("shift_t", 0.0), asked.get("shift_y", 0.0), asked.get("shift_x", 0.0))
        return rope(self.config.head_dim, start, grid, device, scale=scale, shift=shift)

    def _steps(
        self, timestep: Tensor, frames: int, size: torch.Size, num_prefix: int, prefix_timestep: float
    ) -> Tensor:
        """Return timesteps (B, 1), (B, T) or (B, L) of a sequence of latents (T, h, w) whose first ``frames`` are x's.

        The prefix is at its own, and latents behind x are at the timestep of x's end.
        """
        steps = timestep if timestep.ndim == 2 else timestep.unsqueeze(1)
        per_frame = prod(size[1:]) // prod(self.patch_size)
        if steps.shape[1] not in (1, frames, frames * per_frame):
            raise PlanError(
                f"There are {steps.shape[1]} timesteps for {frames} latent frames of {per_frame} tokens: give 1 "
                f"for the clip, {frames} for its frames or {frames * per_frame} for its tokens."
            )
        if num_prefix and steps.shape[1] == 1:
            steps = steps.expand(-1, frames)
        if steps.shape[1] > 1:
            runs = steps.shape[1] // frames
            start = torch.full_like(steps[:, : num_prefix * runs], prefix_timestep)
            behind = steps[:, -1:].expand(-1, (size[0] - frames) * runs)
            steps = torch.cat([start, steps[:, num_prefix * runs :], behind], dim=1)
        return steps

    def _run_lengths(self, steps: Tensor, grid: tuple[int, int, int]) -> list[int]:
        """Return how many tokens of a grid share each of the timesteps (B, S)."""
        return [prod(grid) // steps.shape[1]] * steps.shape[1]

    def _modulation(self, steps: Tensor, lengths: list[int], dtype: torch.dtype) -> tuple[Modulation, Modulation]:
        """Return the head's and the blocks' AdaLN parameters of runs of tokens with timesteps (B, S)."""
        time = self.time_embedding(sinusoid(steps, self.config.freq_dim).to(dtype))  # (B, S, D)
        values = self.time_projection(time).unflatten(2, (6, self.config.dim))
        return Modulation.of(time.unsqueeze(2), lengths), Modulation.of(values, lengths)

    def _padded_text(self, context: Tensor) -> Tensor:
        missing = self.config.text_length - context.shape[1]
        return torch.nn.functional.pad(context, (0, 0, 0, missing)) if missing > 0 else context

    def _embedded_images(self, clip: Tensor | None, batch: int, dtype: torch.dtype) -> Tensor | None:
        if clip is None or self.img_emb is None:
            return None
        if clip.shape[0] > batch:  # the tokens of a first and a last image, one below the other
            clip = clip.reshape(batch, -1, clip.shape[-1])
        return self.img_emb(clip.to(dtype))

    def _embedded_audio(self, audio: Tensor | None, batch: int, frames: int, dtype: torch.dtype) -> Tensor | None:
        if audio is None or self.audio_embedding is None:
            return None
        if audio.shape[1] != frames:
            raise PlanError(f"The audio has windows for {audio.shape[1]} latent frames; the video has {frames}.")
        return repeat_batch(self.audio_embedding(audio.to(dtype)), batch)

    def _check_anchors(self, anchors: AnchorSet, batch: int) -> None:
        if batch % anchors.batch_size:
            raise AnchorError(f"There are {anchors.batch_size} characters' anchors for {batch} clips; it must divide.")
        channels = anchors.anchors[0].latent.shape[1]
        if channels != self.config.out_channels:
            raise AnchorError(
                f"The anchors were encoded to {channels} channels; this model's latents have "
                f"{self.config.out_channels}: encode them with the VAE that belongs to the model."
            )
