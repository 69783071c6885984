"""A board's places by the names that files and pages use: ``global``, ``views.front``, ``expressions.happy``."""

from ..types import EXPRESSIONS, VIEWS, AnchorRole

GLOBAL = "global"
GROUPS = {"views": (AnchorRole.VIEW, VIEWS), "expressions": (AnchorRole.EXPRESSION, EXPRESSIONS)}
"""Keys of a board with several slots: their role, and the names in them."""
KEYS = (GLOBAL, *(f"{group}.{slot}" for group, (_, slots) in GROUPS.items() for slot in slots))
"""All thirteen, in the order of their RoPE positions."""


def role_and_slot(key: str) -> tuple[AnchorRole, str]:
    """Return what the core calls one of KEYS; any other name raises KeyError."""
    if key == GLOBAL:
        return AnchorRole.GLOBAL, ""
    group, _, slot = key.partition(".")
    role, slots = GROUPS[group]
    if slot not in slots:
        raise KeyError(key)
    return role, slot


def key_of(role: AnchorRole, slot: str) -> str:
    """Return the key of a slot."""
    return next((f"{group}.{slot}" for group, (known, _) in GROUPS.items() if known == role), GLOBAL)


def spoken(key: str) -> str:
    """Return a key as an artist reads it, such as ``left view`` or ``global picture``."""
    role, slot = role_and_slot(key)
    return f"{slot} {role}" if slot else "global picture"
