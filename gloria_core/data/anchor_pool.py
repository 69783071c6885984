"""Which pictures go with which clip: its own, and those that other clips of its character lend it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..types import AnchorRole
from .prepared import ELSEWHERE, PreparedAnchor, PreparedClip

Slot = tuple[AnchorRole, str]

_BySlot = Mapping[Slot, Mapping[str, PreparedAnchor]]
"""Pictures by slot and key."""


class AnchorPool:
    """The pictures of a dataset's clips.

    Args:
        clips: all of them.
        lend: whether clips of one character lend each other views and expressions. The global anchor is not lent: it
            shows the scene too.
    """

    def __init__(self, clips: Iterable[PreparedClip], *, lend: bool) -> None:
        self._own: dict[str, _BySlot] = {}
        self._lent: dict[str, dict[Slot, dict[str, PreparedAnchor]]] = {}
        for clip in clips:
            self._own[clip.id] = _by_slot(clip.anchors)
            if lend and clip.character:
                shelf = self._lent.setdefault(clip.character, {})
                for slot, pictures in self._own[clip.id].items():
                    if slot[0] != AnchorRole.GLOBAL:
                        more = {key: replace(anchor, frame=ELSEWHERE) for key, anchor in pictures.items()}
                        shelf.setdefault(slot, {}).update(more)

    def slots(self, clip: PreparedClip) -> frozenset[Slot]:
        """Return the slots that a clip has pictures for."""
        return frozenset(self._own[clip.id]) | frozenset(self._lent.get(clip.character, ()))

    def offered(self, clip: PreparedClip, slot: Slot) -> list[PreparedAnchor]:
        """Return the pictures of a slot that a clip can be given, its own first."""
        own = self._own[clip.id].get(slot, {})
        lent = self._lent.get(clip.character, {}).get(slot, {})
        return [*own.values(), *(anchor for key, anchor in lent.items() if key not in own)]


def _by_slot(anchors: Iterable[PreparedAnchor]) -> _BySlot:
    found: dict[Slot, dict[str, PreparedAnchor]] = {}
    for anchor in anchors:
        found.setdefault((AnchorRole(anchor.role), anchor.slot), {})[anchor.key] = anchor
    return found
