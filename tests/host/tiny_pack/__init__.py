"""A pack for the tests' own server: smaller descriptions of three of the host's networks, and nodes that listen.

It is copied into that server's `custom_nodes`; nothing else imports it. The host reads the sizes of UMT5-XXL and CLIP-H
from JSON files beside its own source, and has the widths of the Wan 2.2 VAE in its code. Here the same names lead
to the smaller files of this folder. The host's own code then builds, loads and runs the networks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import comfy.clip_vision
import comfy.ldm.wan.vae2_2
import comfy.text_encoders.wan
import folder_paths
from comfy.patcher_extension import WrappersMP
from safetensors.torch import save_file
from torch import Tensor

comfy.text_encoders.wan.__file__ = __file__  # umt5_config_xxl.json is looked for beside it
comfy.clip_vision.__file__ = __file__  # and so is clip_vision_config_h.json


class TinyVAE(comfy.ldm.wan.vae2_2.WanVAE):
    def __init__(self, **config: Any) -> None:
        narrow = json.loads(Path(__file__).with_name("wan_2.2_vae.json").read_text(encoding="utf-8"))
        super().__init__(**{**config, **narrow})


comfy.ldm.wan.vae2_2.WanVAE = TinyVAE


def _write(name: str, tensors: dict[str, Tensor | None]) -> None:
    folder = Path(folder_paths.get_output_directory()) / "heard"
    folder.mkdir(exist_ok=True)
    kept = {key: value.detach().float().clone().contiguous() for key, value in tensors.items() if value is not None}
    save_file(kept, folder / f"{name}.safetensors")


class Listen:
    """Writes what the transformer is given, call by call, to output/heard/NAME_NUMBER.safetensors."""

    RETURN_TYPES: ClassVar = ("MODEL",)
    FUNCTION = "listen"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - the host's name
        return {"required": {"model": ("MODEL",), "name": ("STRING", {"default": "model"})}}

    def listen(self, model: Any, name: str) -> tuple[Any]:
        calls: list[None] = []

        def heard(
            go_on: Callable[..., Tensor],
            x: Tensor,
            timestep: Tensor,
            context: Tensor | None = None,
            clip_fea: Tensor | None = None,
            *more: Any,
            **options: Any,
        ) -> Tensor:
            given = {"x": x, "timestep": timestep, "context": context, "clip_fea": clip_fea}
            _write(f"{name}_{len(calls):03}", given)
            calls.append(None)
            return go_on(x, timestep, context, clip_fea, *more, **options)

        listened = model.clone()
        listened.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "tiny", heard)
        return (listened,)


class KeepRows:
    """Writes rows of text and of a picture, as the stock encoders made them, to output/heard/NAME.safetensors."""

    RETURN_TYPES: ClassVar = ()
    FUNCTION = "keep"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - the host's name
        optional = {"text": ("CONDITIONING",), "picture": ("CLIP_VISION_OUTPUT",)}
        return {"required": {"name": ("STRING", {"default": "rows"})}, "optional": optional}

    def keep(self, name: str, text: Any = None, picture: Any = None) -> dict[str, Any]:
        rows = {
            "text": None if text is None else text[0][0],
            "penultimate": None if picture is None else picture["penultimate_hidden_states"],
            "last": None if picture is None else picture["last_hidden_state"],
        }
        _write(name, rows)
        return {}


NODE_CLASS_MAPPINGS = {"TinyListen": Listen, "TinyKeepRows": KeepRows}
