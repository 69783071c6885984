"""Torch's layers without first weights, for a network that is given its weights at once."""

from functools import cache

from torch import nn


class BlankLayers:
    """Has every layer of ``torch.nn``, with nothing drawn when one is built.

    Drawing is not only wasted where a file's weights follow: on the meta device some draws make torch import its
    compiler, which takes seconds and a hundred megabytes.
    """

    def __getattr__(self, name: str) -> type[nn.Module]:
        """Return the layer of that name; AttributeError where torch has none."""
        return _blank(getattr(nn, name))


@cache
def _blank(layer: type[nn.Module]) -> type[nn.Module]:
    return type(layer.__name__, (layer,), {"reset_parameters": lambda self: None})


BLANK = BlankLayers()
"""The namespace itself."""
