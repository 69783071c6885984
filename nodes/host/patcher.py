"""The host's ModelPatcher for weights that are pages of a file, and a copy of one around another model."""

import uuid

import comfy.model_management
import comfy.model_patcher
import comfy.utils
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers import torch_compile
from torch import Tensor

from ...gloria_core.errors import CheckpointError
from .network import with_run_cache
from .support import GloriaModel


class GloriaPatcher(comfy.model_patcher.ModelPatcher):
    """A ModelPatcher that gives a weight memory of its own before the host locks it for fast copies to the device.

    Weights are mapped from their file: that takes no memory until they are read, and the system may drop them again.
    Such pages cannot be locked, because neighbouring weights share them.
    """

    def pin_weight_to_device(self, key: str) -> None:
        """Lock a weight's memory if the host wants that; a mapped weight is copied first."""
        weight = comfy.utils.get_attr(self.model, key)
        if weight is None or weight.data_ptr() not in self.model.mapped:
            super().pin_weight_to_device(key)
            return
        if not _has_room(weight):
            return
        comfy.utils.set_attr_param(self.model, key, weight.clone())
        super().pin_weight_to_device(key)
        if key not in self.pinned:  # the system refused: nothing is gained from the copy
            comfy.utils.set_attr_param(self.model, key, weight)


def _has_room(weight: Tensor) -> bool:
    """Whether the host would lock that much more memory; on the CPU, or where its user forbids it, it locks none."""
    limit = getattr(comfy.model_management, "MAX_PINNED_MEMORY", -1)
    used = getattr(comfy.model_management, "TOTAL_PINNED_MEMORY", 0)
    return bool(used + weight.numel() * weight.element_size() <= limit)


def new_patcher(model: GloriaModel) -> comfy.model_patcher.ModelPatcher:
    """Return the host's MODEL around a model, which gives every sampling run a fresh anchor cache."""
    device = comfy.model_management.get_torch_device()
    patcher = GloriaPatcher(model, load_device=device, offload_device=comfy.model_management.unet_offload_device())
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "gloria", with_run_cache)
    return patcher


def around(patcher: comfy.model_patcher.ModelPatcher, model: GloriaModel) -> comfy.model_patcher.ModelPatcher:
    """Return a MODEL around another model with the same patches, wrappers and options.

    Raises:
        CheckpointError: another node has already replaced or compiled a part of the network; that part would go on
            running, without what is new in the other model.
    """
    replaced = sorted(name for name in patcher.object_patches if name.startswith("diffusion_model"))
    if replaced:
        raise CheckpointError(
            f"A node before this one has replaced a part of the model ({replaced[0]}); place this node before that one."
        )
    if patcher.wrappers.get(WrappersMP.APPLY_MODEL, {}).get(torch_compile.COMPILE_KEY):
        raise CheckpointError("The model is already compiled; place this node before the one that compiles it.")
    clone = patcher.clone()
    fresh = type(patcher)(model, patcher.load_device, patcher.offload_device)  # gives the model the host's bookkeeping
    clone.model, clone.size, clone.parent = fresh.model, 0, None
    clone.backup, clone.object_patches_backup, clone.hook_backup, clone.pinned = {}, {}, {}, set()
    clone.patches_uuid = uuid.uuid4()
    return clone
