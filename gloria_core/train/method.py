"""What of a network is trained: all of it, parts of it, or adapters beside its layers (LoRA, LoKr, LoHa).

Adapters are peft's; here is which layers get one, and how the trained tensors are found again.
"""

import fnmatch
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import torch
from torch import nn

from ..data.network import NEW_AUDIO
from ..errors import ConfigError
from ..model.blocks import Block
from .config import MethodConfig, RunConfig
from .optim import matches, named_parameters

PRESETS: Mapping[str, tuple[str, ...]] = {
    "identity": ("blocks.*.self_attn.[qkvo]",),
    "performance": ("blocks.*.cross_attn.[qkvo]",),
    "character": (
        "blocks.*.self_attn.[qkvo]",
        "blocks.*.cross_attn.[qkvo]",
        "blocks.*.audio_attn.[qkvo]",
        "blocks.*.audio_attn.kv",
        "blocks.*.ffn.[02]",
    ),
    "none": (),
}
"""Layers that get an adapter. Source: training.md section G (which layers carry identity) and F (musubi's default)."""

FULL_WITH: Mapping[str, tuple[str, ...]] = {"performance": NEW_AUDIO}
"""Parameters that a preset trains whole beside its adapters: ears start from silence, so a low rank is no help."""

_BASE = ".base_layer."
"""peft puts the layer it wraps under this name."""


def plain_name(name: str) -> str:
    """Return the name that a parameter had before its layer got an adapter."""
    return name.replace(_BASE, ".")


def is_adapter(name: str) -> bool:
    """Tell whether a parameter belongs to an adapter."""
    return any(f".{part}" in name for part in ("lora_A.", "lora_B.", "lokr_w", "lokr_t", "hada_w", "hada_t"))


def adapted_layers(dit: nn.Module, method: MethodConfig) -> list[str]:
    """Return the linear layers that get an adapter, in the network's order.

    Raises:
        ConfigError: a pattern of ``method.layers`` matches no linear layer, or none is left.
    """
    linear = [name for name, module in dit.named_modules() if isinstance(module, nn.Linear)]
    for pattern in method.layers:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in linear):
            raise ConfigError(
                f"method.layers has the pattern {pattern!r}, which matches no linear layer of the network; names look "
                f"like {linear[len(linear) // 2]!r}."
            )
    wanted = (*PRESETS[method.preset], *method.layers)
    chosen = [name for name in linear if matches(name, wanted) and _in_blocks(name, method.blocks)]
    if not chosen:
        raise ConfigError(
            f"method.preset {method.preset!r} with method.layers {list(method.layers)} and method.blocks "
            f"{list(method.blocks)} leaves no layer to adapt; name some in method.layers, or take another preset."
        )
    return chosen


def _in_blocks(name: str, blocks: tuple[int, ...]) -> bool:
    head, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    return not blocks or head != "blocks" or (number.isdigit() and blocks[0] <= int(number) < blocks[1])


def add_adapters(dit: nn.Module, method: MethodConfig, seed: int) -> None:
    """Put adapters beside a network's layers; what they add is zero at first.

    Args:
        dit: the network, changed in place. Its parameters keep their values.
        method: kind, layers, rank; nothing happens where the kind is ``full``.
        seed: of the adapters' first weights.

    Raises:
        ConfigError: no layer is chosen, or peft is not installed.
    """
    if method.kind == "full":
        return
    layers = adapted_layers(dit, method)
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            f"method.kind is {method.kind!r}, which needs the package peft: install it with `pip install peft`."
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(_peft_config(peft, method, layers), dit)
    for name, parameter in dit.named_parameters():
        if is_adapter(name):  # also beside weights of few bits: steps are too small for those
            parameter.data = parameter.data.float()
    for module in dit.modules():
        if isinstance(module, Block):
            module.feeds_whole = method.kind != "lora"  # others multiply their factors out in each call


def share_inputs(dit: nn.Module) -> None:
    """Leave it to autocast to bring what adapters are given to their type: peft would make each its own copy of it."""
    layers: list[Any] = [module for module in dit.modules() if hasattr(module, "cast_input_dtype_enabled")]
    for layer in layers:
        layer.cast_input_dtype_enabled = False


def _peft_config(peft: Any, method: MethodConfig, layers: list[str]) -> Any:  # noqa: ANN401 - an optional package's
    if method.kind == "lora":
        return peft.LoraConfig(
            r=method.rank, lora_alpha=method.scale_alpha, target_modules=layers, lora_dropout=method.dropout
        )
    kinds = {"lokr": peft.LoKrConfig, "loha": peft.LoHaConfig}
    return kinds[method.kind](
        r=method.rank, alpha=method.scale_alpha, target_modules=layers, module_dropout=method.dropout
    )


def choose_trained(
    modules: Mapping[str, nn.Module], run: RunConfig, method: MethodConfig
) -> tuple[dict[str, nn.Parameter], ...]:
    """Return the parameters that are trained, and switch the gradients of all others off.

    Full training takes what ``run.train`` names less ``run.freeze``. With adapters it is those and what
    ``method.full`` names, less ``run.freeze``. Patterns are of names as they are without adapters, such as
    ``dit.blocks.0.ffn.0.weight``.

    Returns:
        The trained ones, and the others, by their full names.

    Raises:
        ConfigError: a pattern matches no parameter, a layer is asked for twice, or nothing is left to train.
    """
    parameters = named_parameters(modules)
    wanted = run.train if method.kind == "full" else _full_patterns(method, parameters)
    settings = {"run.train" if method.kind == "full" else "method.full": wanted, "run.freeze": run.freeze}
    for setting, patterns in settings.items():
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(plain_name(name), pattern) for name in parameters):
                raise ConfigError(
                    f"{setting} has the pattern {pattern!r}, which matches no parameter; names look like "
                    f"{plain_name(next(iter(parameters)))!r}."
                )
    if method.kind != "full" and run.train != ("*",):
        raise ConfigError(
            f"run.train is {list(run.train)} beside method.kind = {method.kind!r}: name layers for adapters in "
            "method.layers, and parameters to train whole in method.full."
        )
    trained: dict[str, nn.Parameter] = {}
    frozen: dict[str, nn.Parameter] = {}
    for name, parameter in parameters.items():
        chosen = is_adapter(name) or matches(plain_name(name), wanted)
        chosen = chosen and not matches(plain_name(name), run.freeze)
        _check_once(name, chosen)
        parameter.requires_grad_(chosen)
        (trained if chosen else frozen)[name] = parameter
    if not trained:
        raise ConfigError("run.train and run.freeze leave no parameter to train; freeze fewer.")
    return trained, frozen


def _full_patterns(method: MethodConfig, parameters: Mapping[str, nn.Parameter]) -> tuple[str, ...]:
    """Return what is trained whole beside adapters; a preset's own share counts only where the network has it."""
    own = FULL_WITH.get(method.preset, ())
    present = [pattern for pattern in own if any(fnmatch.fnmatchcase(name, pattern) for name in parameters)]
    return (*method.full, *present)


def _check_once(name: str, chosen: bool) -> None:
    if chosen and _BASE in name:
        raise ConfigError(
            f"{plain_name(name)} is trained whole by method.full, and its layer has an adapter too; take it out of "
            "one of them."
        )


def fingerprint(parameters: Mapping[str, torch.Tensor]) -> str:
    """Return a digest of weights by names, shapes and a spread of their numbers: enough to tell two models apart."""
    digest = blake2b(digest_size=16)
    for name in sorted(parameters):
        tensor = parameters[name].detach()
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        flat = tensor.reshape(-1)
        some = flat[:: max(1, flat.numel() // 64)][:64]
        digest.update(some.float().cpu().numpy().tobytes())
    return digest.hexdigest()
