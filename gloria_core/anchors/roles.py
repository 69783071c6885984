"""Names of anchors as people type them."""

from collections.abc import Sequence
from difflib import get_close_matches

from ..errors import AnchorError
from ..types import SLOTS, AnchorRole


def parse_role(text: str) -> AnchorRole:
    """Return the role that a name stands for, whatever its case; an unknown name raises AnchorError."""
    roles = [role.value for role in AnchorRole]
    name = text.strip().lower()
    if name not in roles:
        raise AnchorError(f"There is no anchor role {text!r}{_hint(name, roles)} The roles are: {', '.join(roles)}.")
    return AnchorRole(name)


def parse_slot(role: AnchorRole, text: str) -> str:
    """Return the slot of a role that a name stands for, whatever its case; an unknown name raises AnchorError.

    The global anchor's only slot has the empty name.
    """
    slots = SLOTS[role]
    name = text.strip().lower()
    if name in slots:
        return name
    if slots == ("",):
        raise AnchorError(f"The {role} anchor has no slots, but {text!r} was given; leave the slot empty.")
    raise AnchorError(f"There is no {role} slot {text!r}{_hint(name, slots)} The {role} slots are: {', '.join(slots)}.")


def _hint(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "."
