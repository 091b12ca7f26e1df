"""Parts of the page that exist once per setting, and the buttons that choose among them.

Without scripts all are shown, each under its setting. An element with `data-when="temperature=0 batch=1"` is shown
where all of that is chosen.
"""

from collections.abc import Callable, Iterable, Sequence

from anydraft.bench.pages.markup import Markup, tag
from anydraft.bench.pages.results import Result, Setting


def switch(key: str, label: str, values: Sequence[tuple[str, str]]) -> Markup | None:
    """Buttons that choose one of several values (value, text); None where there is nothing to choose."""
    if len(values) < 2:
        return None
    buttons = (
        tag(
            "button", text, type="button", data_key=key, data_value=value, aria_pressed="true" if not place else "false"
        )
        for place, (value, text) in enumerate(values)
    )
    return tag("div", tag("span", label), *buttons, class_="switch", role="group", aria_label=label)


def controls(settings: Iterable[Setting]) -> Markup | None:
    """The buttons for temperature and batch."""
    settings = list(settings)
    temperatures = sorted({setting.temperature for setting in settings})
    batches = sorted({setting.batch for setting in settings})
    parts = [
        switch("temperature", "Temperature", [(f"{value:g}", f"{value:g}") for value in temperatures]),
        switch("batch", "Batch", [(str(value), str(value)) for value in batches]),
    ]
    return tag("nav", *parts, class_="controls", aria_label="Settings") if any(parts) else None


def when(**chosen: object) -> str:
    """The value of `data-when`."""
    return " ".join(f"{key}={value}" for key, value in chosen.items())


def at(setting: Setting) -> str:
    """The value of `data-when` for a setting."""
    return when(temperature=f"{setting.temperature:g}", batch=setting.batch)


def panels(rows: Sequence[Result], draw: Callable[[list[Result]], Sequence[Markup]]) -> list[Markup]:
    """What `draw` makes of the rows of each setting, for every temperature with every batch."""
    settings = sorted({row.setting for row in rows})
    several = len(settings) > 1
    made = []
    for temperature in sorted({setting.temperature for setting in settings}):
        for batch in sorted({setting.batch for setting in settings}):
            setting = Setting(temperature, batch)
            mine = [row for row in rows if row.setting == setting]
            body = draw(mine) if mine else [tag("p", f"Nothing was measured at {setting}.", class_="none")]
            title = tag("p", str(setting), class_="setting") if several else None
            made.append(tag("div", title, *body, class_="panel", data_when=at(setting) if several else None))
    return made


def section(name: str, kicker: str, *parts: object) -> Markup:
    """A part of the page under its name."""
    return tag("section", tag("p", kicker, class_="kicker"), *parts, id=name)
