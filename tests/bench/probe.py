"""A node pack for the bench's own server: it notes what sampling costs, and how a VAE's stream differs from one go.

The bench copies this file into `custom_nodes`. Each node appends a line of JSON to the file that GLORIA_PROBE names.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


def note(**numbers: Any) -> None:
    with Path(os.environ["GLORIA_PROBE"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(numbers) + "\n")


def live_bytes() -> int:
    """Bytes of all tensors that Python holds, each storage once."""
    found = (thing for thing in gc.get_objects() if isinstance(thing, Tensor))
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in found}.values())


class Probe:
    """Notes the processor time of each sampling run: all of it, and the network's share; bytes alive where asked to."""

    RETURN_TYPES: ClassVar = ("MODEL",)
    FUNCTION = "probe"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - the host's name
        return {"required": {"model": ("MODEL",), "name": ("STRING", {}), "alive_at": ("STRING", {"default": ""})}}

    def probe(self, model: Any, name: str, alive_at: str) -> tuple[Any]:
        watched = {int(number) for number in alive_at.split(",") if number}
        inside, runs = [], [0]

        def forward(go_on: Callable[..., Tensor], *given: Any, **named: Any) -> Tensor:
            began = time.process_time()
            made = go_on(*given, **named)
            inside.append(time.process_time() - began)
            return made

        def whole(go_on: Callable[..., Tensor], *given: Any, **named: Any) -> Tensor:
            inside.clear()
            began = time.process_time()
            made = go_on(*given, **named)
            told = {"all_s": time.process_time() - began, "inside_s": sum(inside), "calls": len(inside)}
            runs[0] += 1
            note(name=name, run=runs[0], **told, **({"alive": live_bytes()} if runs[0] in watched else {}))
            return made

        probed = model.clone()
        probed.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "probe", forward)
        probed.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "probe", whole)
        return (probed,)


class HoldStart:
    """Holds the first latents by a mask, as the host's own inpainting does."""

    RETURN_TYPES: ClassVar = ("LATENT",)
    FUNCTION = "hold"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - the host's name
        return {"required": {"samples": ("LATENT",), "count": ("INT", {"default": 4})}}

    def hold(self, samples: dict[str, Any], count: int) -> tuple[dict[str, Any]]:
        latents = samples["samples"]
        mask = latents.new_ones(1, 1, *latents.shape[2:])
        mask[:, :, :count] = 0.0
        return ({**samples, "noise_mask": mask},)


class StreamedOrNot:
    """Decodes random latents in one go and as a stream, and notes the work of both and how they differ."""

    RETURN_TYPES: ClassVar = ()
    FUNCTION = "decode"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - the host's name
        return {"required": {"vae": ("VAE",), "name": ("STRING", {}), "count": ("INT", {"default": 21})}}

    def decode(self, vae: Any, name: str, count: int) -> dict[str, Any]:
        [stream] = [module for at, module in sys.modules.items() if at.endswith("gloria.nodes.host.vae_stream")]
        latents = torch.randn(1, vae.latent_channels, count, 4, 6, generator=torch.Generator().manual_seed(1))
        with FlopCounterMode(display=False) as once:
            whole = vae.decode(latents)[0]
        with FlopCounterMode(display=False) as asked:
            decoder = stream.StreamDecoder(vae)  # it looks whether this decoder can be continued, once a film
        with FlopCounterMode(display=False) as streamed:
            for piece in latents.split(5, dim=2):
                decoder(piece)
        decoder, pieces = stream.StreamDecoder(vae), []
        for piece in latents.split(5, dim=2):
            pieces.append(decoder.ahead(piece))  # what the host gives out, before it becomes bytes
            decoder(piece)
        note(
            name=name,
            frames=len(whole),
            gflops=round(once.get_total_flops() / 1e9, 3),
            gflops_once_a_film=round(asked.get_total_flops() / 1e9, 3),
            flops_ratio=streamed.get_total_flops() / max(1, once.get_total_flops()),
            largest_difference=float((torch.cat(pieces) - whole).abs().max()),
        )
        return {}


NODE_CLASS_MAPPINGS = {"BenchProbe": Probe, "BenchHoldStart": HoldStart, "BenchStreamedOrNot": StreamedOrNot}
