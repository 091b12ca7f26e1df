"""HTML and SVG from Python: whatever is not markup already is escaped, so no text of a model can become markup."""

import html
from typing import Self

CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
"""Control characters and their pictures: a page shows them."""
REORDERING = {
    code: f"[U+{code:04X}]" for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""Characters that change the direction of the text around them."""
NOT_TEXT = dict.fromkeys((*range(128, 160), *range(55296, 57344), 65534, 65535), 65533)
"""Halves of pairs, which no file can hold, and what HTML forbids."""
SHOWN = CONTROLS | REORDERING | NOT_TEXT
VOID = frozenset({"meta", "link", "input", "br"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()

    @classmethod
    def join(cls, parts: "list[Markup]") -> Self:  # type: ignore[override]
        """All parts, one after the other."""
        return cls("".join(parts))


def visible(text: str) -> str:
    """The text with what cannot be seen, or would change what is around it, replaced by pictures."""
    return text.translate(SHOWN)


def escape(text: object) -> Markup:
    """Markup as it is; anything else as text that a browser shows and does not obey."""
    return text if isinstance(text, Markup) else Markup(html.escape(visible(str(text))))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element.

    Children that are not `Markup` are escaped, None is left out. `class_` is class, `data_at` is data-at; an
    attribute of None is left out, True has no value.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{escape(_number(value))}"')
    opening = f"<{' '.join(words)}>"
    if name in VOID:
        return Markup(opening)
    return Markup(opening + "".join(escape(child) for child in children if child is not None) + f"</{name}>")


def _number(value: object) -> object:
    """Coordinates with one decimal: a tenth of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
