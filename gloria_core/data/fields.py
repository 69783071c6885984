"""The fields of one JSON object, read strictly: what is missing, of another kind or unknown is told with its place."""

import json
import unicodedata
from difflib import get_close_matches
from typing import Any, overload

from ..errors import DatasetError


def read_json(text: str) -> Any:  # noqa: ANN401 - parsed JSON
    """Return what a text of JSON says; ValueError where it is none, or goes too deep."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it goes too deep") from error


class Fields:
    """Reads an object's fields one by one, and knows which were asked for.

    Args:
        values: parsed JSON.
        where: the object's place, for messages.

    Raises:
        DatasetError: it is no object; and from every method, where a field breaks its rule.
    """

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, dict):
            raise DatasetError(f"{where} is {_short(values)}; it must be an object in braces.")
        self.where = where
        self._values: dict[str, Any] = values
        self._known: list[str] = []

    def has(self, name: str) -> bool:
        """Tell whether a field is there."""
        return self._get(name) is not None

    def text(self, name: str, usual: str = "") -> str:
        """Return a text, or ``usual`` where it is missing."""
        value = self._get(name)
        found = usual if value is None else self._of_kind(name, value, str, "text in quotes")
        if any(unicodedata.category(sign) == "Cs" for sign in found):
            raise DatasetError(f"{self.where}: {name} is {_short(found)}, with half a sign; write it again as UTF-8.")
        return found

    def name(self, name: str) -> str:
        """Return a text that must be there and not be empty."""
        value = self.text(name).strip()
        if not value:
            raise DatasetError(f"{self.where}: {name} is missing or empty; it is needed.")
        return value

    def number(self, name: str, usual: float, *, high: float) -> float:
        """Return a number from 0 to ``high``."""
        value = self._get(name)
        if value is None:
            return usual
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= high:
            raise DatasetError(f"{self.where}: {name} is {_short(value)}; it must be a number from 0 to {high:,.0f}.")
        return float(value)

    @overload
    def whole(self, name: str, usual: int = 0) -> int: ...

    @overload
    def whole(self, name: str, usual: None) -> int | None: ...

    def whole(self, name: str, usual: int | None = 0) -> int | None:
        """Return a whole number of 0 or more."""
        value = self._get(name)
        if value is None:
            return usual
        return self._count(name, value)

    def flag(self, name: str) -> bool:
        """Return true or false, false where it is missing."""
        value = self._get(name)
        return False if value is None else self._of_kind(name, value, bool, "true or false")

    def numbers(self, name: str, count: int) -> tuple[int, ...] | None:
        """Return so many whole numbers of 0 or more; None where they are missing."""
        value = self._get(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != count:
            raise DatasetError(f"{self.where}: {name} is {_short(value)}; it must be a list of {count} whole numbers.")
        return tuple(self._count(name, item) for item in value)

    def four(self, name: str) -> tuple[int, int, int, int]:
        """Return left, top, width and height of a box with an inside."""
        found = self.numbers(name, 4)
        if found is None or min(found[2:]) < 1:
            raise DatasetError(
                f"{self.where}: {name} is {_short(self._get(name))}; give [left, top, width, height] in pixels, the "
                "last two at least 1."
            )
        return (found[0], found[1], found[2], found[3])

    def items(self, name: str) -> list["Fields"]:
        """Return the objects of a list."""
        value = self._get(name)
        found = [] if value is None else self._of_kind(name, value, list, "a list of objects")
        return [Fields(item, f"{self.where}, {name}[{index}]") for index, item in enumerate(found)]

    def nothing_else(self) -> None:
        """Refuse fields that nobody asked for."""
        for name in self._values.keys() - set(self._known):
            close = get_close_matches(str(name), self._known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(sorted(set(self._known)))}."
            raise DatasetError(f"{self.where}: there is no field {name!r}; {hint}")

    def _get(self, name: str) -> Any:  # noqa: ANN401 - parsed JSON
        self._known.append(name)
        return self._values.get(name)

    def _of_kind(self, name: str, value: object, kind: type, told: str) -> Any:  # noqa: ANN401 - of the kind asked for
        if not isinstance(value, kind):
            raise DatasetError(f"{self.where}: {name} is {_short(value)}; it must be {told}.")
        return value

    def _count(self, name: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise DatasetError(f"{self.where}: {name} is {_short(value)}; it must be a whole number of 0 or more.")
        return value


def _short(value: object) -> str:
    return repr(value)[:80]
