"""Packages that only some weights need, imported when they are asked for."""

from typing import Any

from ..errors import ConfigError


def diffusers() -> Any:  # noqa: ANN401 - a module
    """Return diffusers, for Wan's VAEs; ConfigError where it is not installed."""
    try:
        import diffusers as package
    except ImportError as error:
        raise _missing("diffusers", "Wan's VAE in Diffusers' layout", error) from error
    return package


def transformers(what: str = "Wan's text encoder") -> Any:  # noqa: ANN401 - a module
    """Return transformers, for what is named; ConfigError where it is not installed."""
    try:
        import transformers as package
    except ImportError as error:
        raise _missing("transformers", what, error) from error
    return package


def ftfy() -> Any:  # noqa: ANN401 - a module
    """Return ftfy, which mends the letters of prompts; None where it is not installed."""
    try:
        import ftfy as package
    except ImportError:
        return None
    return package


def _missing(name: str, what: str, error: ImportError) -> ConfigError:
    return ConfigError(f"{what} needs the package {name}, which cannot be imported ({error}): pip install {name}.")
