"""GloriaDiT: Wan's video transformer with content anchors and an audio branch. Paper: 4; numerics: wan.md section 1."""

from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import AnchorError, PlanError
from ..protocols import Attention, Operations
from ..types import Anchor, AnchorSet
from .attention import torch_attention
from .audio import AudioEmbedding
from .blocks import KV, Block, Conditions, Head, Modulation, repeat_batch
from .cache import AnchorCache
from .embed import ClipEmbedding, pad_to_patch, sinusoid, unpatchify
from .rope import Rope, join, rope


class GloriaDiT(nn.Module):
    """Predicts the velocity (noise - clean) of noisy video latents.

    Args:
        config: the architecture.
        operations: namespace of layers (Linear, LayerNorm, RMSNorm, Conv3d, Embedding); the host lends its own.
        attention: the attention callable; torch's own where None.
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
        attention = attention or torch_attention
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
        self.audio_embedding = AudioEmbedding(config.audio, operations, factory) if config.audio else None
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
        audio: Tensor | None = None,
        cache: AnchorCache | None = None,
        **_unused: object,
    ) -> Tensor:
        """Predict the velocity.

        Args:
            x: latents (B, C_in, T, h, w); the first ``num_prefix`` frames are clean.
            timestep: (B,) or (B, T) in 0..1000; the prefix is at 0 whatever is given for it.
            context: rows of text (B, L, text_dim); padded with zero rows to the trained length.
            clip_fea: CLIP vision tokens (B, 257, 1280); without them the image branch is silent.
            time_dim_concat: extra latent frames put behind ``x`` (the host's own references), cut off again.
            transformer_options: the host's options; ``patches_replace`` for double blocks is obeyed.
            anchors: the character's anchors; their batch divides B, and clip b uses row b // (B / Ba).
            num_prefix: clean latent frames at the start of ``x``.
            audio: windows of features (B, T, W, A); zeros mean "no audio", None skips the branch.
            cache: keeps keys and values of anchors (a video long) and prefix (a chunk long) in the cached mode.

        Returns:
            (B, C_out, T, h, w); zero on the prefix.

        Raises:
            AnchorError: the anchors' batch does not divide B, or their channels are not the latent's.
            PlanError: the prefix leaves nothing to generate.
        """
        batch, _, frames, height, width = x.shape
        if not 0 <= num_prefix < frames:
            raise PlanError(f"The prefix is {num_prefix} latent frames of {frames}; at least one must be left to make.")
        if anchors is not None and len(anchors):
            self._check_anchors(anchors, batch)
        sequence = x if time_dim_concat is None else torch.cat([x, time_dim_concat.to(x)], dim=2)
        sequence = pad_to_patch(sequence, self.patch_size)
        if timestep.ndim == 2 and sequence.shape[2] > timestep.shape[1]:
            timestep = torch.cat([timestep, timestep[:, -1:].expand(-1, sequence.shape[2] - frames)], dim=1)
        given = Conditions(
            text=self.text_embedding(self._padded_text(context)),
            image=self.img_emb(clip_fea.to(context)) if self.img_emb is not None and clip_fea is not None else None,
            audio=self._embedded_audio(audio, batch, frames, x.dtype),
            options=transformer_options or {},
        )
        run = self._cached if self.config.anchors.mode == "cached" else self._joint
        output = run(sequence, timestep, given, tuple(anchors or ()), num_prefix, cache)
        output = output[:, :, :frames, :height, :width]
        output = self._precondition(output, x, timestep)
        if num_prefix:
            output = torch.cat([torch.zeros_like(output[:, :, :num_prefix]), output[:, :, num_prefix:]], dim=2)
        return output

    def _joint(
        self,
        x: Tensor,
        timestep: Tensor,
        given: Conditions,
        anchors: tuple[Anchor, ...],
        num_prefix: int,
        cache: AnchorCache | None,
    ) -> Tensor:
        """Run video and anchors as one sequence in which all see all (the paper's way)."""
        video, grid = self._patchify(x)
        tokens, tables = [video], [self._rope(0, grid, x.device)]
        steps = self._frame_steps(timestep, grid[0], num_prefix)
        lengths = [grid[1] * grid[2]] * steps.shape[1] if steps.shape[1] > 1 else [video.shape[1]]
        for anchor in anchors:
            token, anchor_grid = self._patchify(self._anchor_input(anchor.latent, x))
            tokens.append(repeat_batch(token, x.shape[0]))
            tables.append(self._rope(self.config.anchors.position(anchor.role, anchor.slot), anchor_grid, x.device))
            shared = self.config.anchors.timestep == "shared"
            steps = torch.cat([steps, steps[:, -1:] if shared else torch.zeros_like(steps[:, :1])], dim=1)
            lengths.append(token.shape[1])
        time, modulation = self._modulation(steps, lengths, video.dtype)
        given = replace(given, num_audio_tokens=video.shape[1])
        out = self._run_blocks(torch.cat(tokens, dim=1), modulation, join(tables), None, given)
        count = video.shape[1]
        head_time = Modulation(time.unsqueeze(2), modulation.lengths)
        head = self.head(out, head_time)[:, :count]
        return unpatchify(head, grid, self.patch_size)

    def _cached(
        self,
        x: Tensor,
        timestep: Tensor,
        given: Conditions,
        anchors: tuple[Anchor, ...],
        num_prefix: int,
        cache: AnchorCache | None,
    ) -> Tensor:
        """Run clean tokens first (each anchor alone, then the prefix), then the video, which looks at all of them."""
        foreign = self._anchor_kv(anchors, x, cache)  # one list of KV for each block
        if num_prefix:
            prefix = cache.prefix(num_prefix, x.shape[0]) if cache else None
            if prefix is None:
                tokens, grid = self._patchify(x[:, :, :num_prefix])
                prefix = self._encode_clean(tokens, self._rope(0, grid, x.device), foreign)
                if cache:
                    cache.keep_prefix(num_prefix, x.shape[0], prefix)
            foreign = [[*kvs, kv] for kvs, kv in zip(foreign, prefix, strict=True)]
            x = x[:, :, num_prefix:]
        video, grid = self._patchify(x)
        steps = timestep[:, num_prefix:] if timestep.ndim == 2 else timestep.unsqueeze(1)
        lengths = [grid[1] * grid[2]] * steps.shape[1] if steps.shape[1] > 1 else [video.shape[1]]
        time, modulation = self._modulation(steps, lengths, video.dtype)
        audio = given.audio[:, num_prefix:] if given.audio is not None else None
        heard = audio.shape[1] * grid[1] * grid[2] if audio is not None else 0
        given = replace(given, audio=audio, num_audio_tokens=heard)
        out = self._run_blocks(video, modulation, self._rope(num_prefix, grid, x.device), foreign, given)
        out = unpatchify(self.head(out, Modulation(time.unsqueeze(2), modulation.lengths)), grid, self.patch_size)
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
        latents = torch.stack([self._anchor_input(a.latent, x) for a in anchors], dim=1)  # (Ba, n, C, 1, h, w)
        tokens, grid = self._patchify(latents.flatten(0, 1))
        tables = [self._rope(place, grid, x.device) for place in places]
        batch = latents.shape[0]
        table = tuple(
            torch.stack([t[part] for t in tables]).repeat(batch, 1, 1) for part in (0, 1)
        )  # (Ba*n, L, K/2): every row turns by its own anchor's position
        blocks = self._encode_clean(tokens, (table[0], table[1]), [[] for _ in self.blocks])
        split = [
            [(k.unflatten(0, (batch, -1))[:, i], v.unflatten(0, (batch, -1))[:, i]) for k, v in blocks]
            for i in range(len(anchors))
        ]
        return dict(zip(indices, split, strict=True))

    def _encode_clean(self, tokens: Tensor, table: Rope, foreign: list[list[KV]]) -> list[KV]:
        """Run tokens at timestep 0 through the blocks without text or audio; return their keys and values."""
        _, modulation = self._modulation(tokens.new_zeros(1, 1), [tokens.shape[1]], tokens.dtype)
        blocks = []
        for block, kvs in zip(self.blocks, foreign, strict=True):
            tokens, own = block(tokens, modulation, table, kvs, Conditions())
            blocks.append(own)
        return blocks

    def _run_blocks(
        self, x: Tensor, modulation: Modulation, table: Rope, foreign: list[list[KV]] | None, given: Conditions
    ) -> Tensor:
        replacements = given.options.get("patches_replace", {}).get("dit", {})
        for index, block in enumerate(self.blocks):
            kvs = foreign[index] if foreign else []
            replacement = replacements.get(("double_block", index))
            if replacement is None:
                x, _ = block(x, modulation, table, kvs, given)
                continue

            def original(args: dict[str, Any], block: nn.Module = block, kvs: list[KV] = kvs) -> dict[str, Tensor]:
                changed = replace(given, text=args["txt"], options=args["transformer_options"])
                return {"img": block(args["img"], modulation, args["pe"], kvs, changed)[0]}

            state = {"img": x, "txt": given.text, "vec": modulation, "pe": table, "transformer_options": given.options}
            x = replacement(state, {"original_block": original})["img"]
        return x

    def _patchify(self, x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        tokens = self.patch_embedding(pad_to_patch(x, self.patch_size).float()).to(x.dtype)
        t, h, w = tokens.shape[2:]
        return rearrange(tokens, "b d t h w -> b (t h w) d"), (t, h, w)

    def _rope(self, start: int, grid: tuple[int, int, int], device: torch.device) -> Rope:
        return rope(self.config.head_dim, start, grid, device)

    def _frame_steps(self, timestep: Tensor, frames: int, num_prefix: int) -> Tensor:
        """Return timesteps (B, 1), or (B, T) where frames differ: given so, or because of a clean prefix."""
        steps = timestep if timestep.ndim == 2 else timestep.unsqueeze(1)
        if num_prefix:
            steps = steps.expand(-1, frames)
            steps = torch.cat([torch.zeros_like(steps[:, :num_prefix]), steps[:, num_prefix:]], dim=1)
        return steps

    def _modulation(self, steps: Tensor, lengths: list[int], dtype: torch.dtype) -> tuple[Tensor, Modulation]:
        """Return the time embedding (B, S, D) and the blocks' AdaLN parameters of runs of tokens."""
        time = self.time_embedding(sinusoid(steps, self.config.freq_dim).to(dtype))  # (B, S, D)
        values = self.time_projection(time).unflatten(2, (6, self.config.dim))
        runs = torch.tensor(lengths, device=time.device) if len(lengths) > 1 else None
        return time, Modulation(values, runs)

    def _anchor_input(self, latent: Tensor, x: Tensor) -> Tensor:
        """Fill the input channels of an anchor: [latent] or, in a 36-channel model, [latent, mask 1, latent]."""
        latent = latent.to(x)
        if self.config.has_image_channels:
            masks = self.config.in_channels - 2 * self.config.out_channels
            ones = latent.new_ones(latent.shape[0], masks, *latent.shape[2:])
            latent = torch.cat([latent, ones, latent], dim=1)
        return latent

    def _padded_text(self, context: Tensor) -> Tensor:
        missing = self.config.text_length - context.shape[1]
        return torch.nn.functional.pad(context, (0, 0, 0, missing)) if missing > 0 else context

    def _embedded_audio(self, audio: Tensor | None, batch: int, frames: int, dtype: torch.dtype) -> Tensor | None:
        if audio is None or self.audio_embedding is None:
            return None
        if audio.shape[1] != frames:
            raise PlanError(f"The audio has windows for {audio.shape[1]} latent frames; the video has {frames}.")
        return repeat_batch(self.audio_embedding(audio.to(dtype)), batch)

    def _precondition(self, output: Tensor, x: Tensor, timestep: Tensor) -> Tensor:
        """Turn the network's output F into a velocity c_skip x + c_out F where the model knows its latents' spread.

        For a clean latent of standard deviation s and the noise level sigma, c_skip x is the best linear guess of the
        velocity and c_out the standard deviation of what remains, so that F is of unit size at every noise level.
        Source: the argument of Karras et al. 2022 (EDM, section 5), worked out for x = (1-sigma) x0 + sigma noise.
        """
        if not self.config.latent_std:
            return output
        std = torch.tensor(self.config.latent_std, device=x.device, dtype=torch.float32).view(1, -1, 1, 1, 1)
        sigma = (timestep.float() / 1000).view(x.shape[0], 1, -1, 1, 1)
        sigma = sigma[:, :, : x.shape[2]]
        variance = ((1 - sigma) * std) ** 2 + sigma**2
        skip = (sigma - (1 - sigma) * std**2) / variance
        scale = std / variance.sqrt()
        latent = x[:, : self.config.out_channels]
        return (skip * latent + scale * output).to(output.dtype)

    def _check_anchors(self, anchors: AnchorSet, batch: int) -> None:
        if batch % anchors.batch_size:
            raise AnchorError(f"There are {anchors.batch_size} characters' anchors for {batch} clips; it must divide.")
        channels = anchors.anchors[0].latent.shape[1]
        if channels != self.config.out_channels:
            raise AnchorError(
                f"The anchors were encoded to {channels} channels; this model's latents have "
                f"{self.config.out_channels}: encode them with the VAE that belongs to the model."
            )
