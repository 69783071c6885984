"""Errors that a user can act on: what is wrong, the value, the rule and the nearest fix."""


class GloriaError(ValueError):
    """Base of every error that the core raises on bad input."""


class ConfigError(GloriaError):
    """A setting is unknown, of the wrong kind, or contradicts another one."""


class CheckpointError(GloriaError):
    """A weights file is missing, cut, or does not fit the model."""


class AnchorError(GloriaError):
    """An anchor is missing, doubled, misnamed, or of a size that the model cannot take."""


class AudioError(GloriaError):
    """A sound is missing, empty, or does not fit the model."""


class MediaError(GloriaError):
    """A picture or video file cannot be read or written."""


class PlanError(GloriaError):
    """A video cannot be cut into chunks as asked."""


class LoraError(GloriaError):
    """A LoRA file is damaged, or does not fit the model."""


class DatasetError(GloriaError):
    """Footage for training, its manifest or its cache cannot be used."""


class NothingHeldOutError(ConfigError):
    """No clip is held out, or none any more."""
