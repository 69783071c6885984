"""The host's node API, in one place: a newer spelling of a name is looked up here and nowhere else."""

from comfy_api.latest import ComfyExtension, InputImpl, io, ui

VideoFromFile = InputImpl.VideoFromFile
"""A VIDEO that points at a file on disk."""

__all__ = ["ComfyExtension", "VideoFromFile", "io", "ui"]
