import pytest

from gloria_core.anchors.roles import parse_role, parse_slot
from gloria_core.errors import AnchorError
from gloria_core.types import SLOTS, AnchorRole


@pytest.mark.parametrize("role", list(AnchorRole))
def test_names_are_read_in_any_case(role: AnchorRole) -> None:
    assert parse_role(f" {role.value.upper()} ") is role
    for slot in SLOTS[role]:
        assert parse_slot(role, f" {slot.title()} ") == slot


@pytest.mark.parametrize(("typed", "meant"), [("veiw", "view"), ("expresion", "expression"), ("Globel", "global")])
def test_misspelt_roles_are_told_what_was_meant(typed: str, meant: str) -> None:
    with pytest.raises(AnchorError, match=f"'{typed}'; did you mean '{meant}'.*global, view, expression"):
        parse_role(typed)


@pytest.mark.parametrize(
    ("role", "typed", "meant"),
    [
        (AnchorRole.VIEW, "lefft", "left"),
        (AnchorRole.VIEW, "Backside", "back"),
        (AnchorRole.EXPRESSION, "anger", "angry"),
        (AnchorRole.EXPRESSION, "sadness", "sad"),
        (AnchorRole.EXPRESSION, "surprised", "surprise"),
    ],
)
def test_misspelt_slots_are_told_what_was_meant(role: AnchorRole, typed: str, meant: str) -> None:
    with pytest.raises(AnchorError, match=f"no {role} slot '{typed}'; did you mean '{meant}'"):
        parse_slot(role, typed)


def test_names_like_nothing_get_the_whole_list() -> None:
    with pytest.raises(AnchorError, match=r"'qqq'\. The view slots are: front, back, left, right\."):
        parse_slot(AnchorRole.VIEW, "qqq")
    with pytest.raises(AnchorError, match="no anchor role ''"):
        parse_role("")


def test_the_global_anchor_has_no_slot() -> None:
    with pytest.raises(AnchorError, match="leave the slot empty"):
        parse_slot(AnchorRole.GLOBAL, "front")
