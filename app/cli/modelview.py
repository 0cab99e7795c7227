"""A model for people: categories, their characteristics with attributes and points, overrides, bands, tables."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from core.model import HUNDREDTHS, CategoryInfo, Characteristic, Model

WIDTH = 140


def print_model(console: Console, model: Model) -> None:
    """The whole model, in the order of its file."""
    width = min(console.width, WIDTH)
    for part in _parts(model):
        console.print(part, width=width)


def points(hundredths: int) -> str:
    """Points as a person writes them."""
    return f"{hundredths / HUNDREDTHS:g}"


def worst(model: Model, category: str | None = None) -> int:
    """The most points that all characteristics, or those of a category, can give together."""
    return sum(most for _, most in model.spans(category))


def best(model: Model) -> int:
    """The fewest points that all characteristics can give together."""
    return sum(least for least, _ in model.spans())


def _parts(model: Model) -> Iterator[RenderableType]:
    heading = Text(f"{model.key}  {model.title}", "bold")
    heading.append(f"\nreleased {model.released}, sha256 {model.sha256.hex()}", "not bold dim")
    yield heading
    bands = ", ".join(f"{level} from {points(mark)} ({model.decisions[level]})" for level, mark in model.bands)
    yield Text(f"Base {points(model.base)}. Levels: {bands}.")
    for category in model.categories:
        yield Text()
        yield _category(model, category)
        for characteristic in model.characteristics:
            if characteristic.category == category.name:
                yield Padding(_characteristic(characteristic), (1, 0, 0, 2))
                yield Padding(_attributes(characteristic), (0, 0, 0, 4))
    yield Text("\nRules outside the sum", "bold")
    for override in model.overrides:
        text = Text(override.message)
        law = ", by law" if override.legal else ""
        text.append(f"\n{override.code}  at least {override.floor}, {override.decision}{law}", "dim")
        yield Padding(text, (0, 0, 0, 2))
    yield Text("\nTables", "bold")
    for table in model.tables.values():
        text = Text(f"{table.name}, as of {table.as_of}")
        text.append(f"\n{table.source}", "dim")
        yield Padding(text, (0, 0, 0, 2))


def _category(model: Model, category: CategoryInfo) -> Text:
    text = Text(category.title, "bold underline")
    text.append(f"  at most {points(worst(model, category.name))} points", "not bold not underline")
    for floor in category.floors:
        text.append(f"\n  from {points(floor.points)} points at least {floor.level}  ", "not bold not underline")
        text.append(floor.code, "not bold not underline dim")
    return text


def _characteristic(characteristic: Characteristic) -> Text:
    text = Text(characteristic.title, "bold")
    notes = [characteristic.name]
    if characteristic.feature != characteristic.name:
        notes.append(f"of {characteristic.feature}")
    notes += [characteristic.direction] if characteristic.direction else []
    notes += ["required"] if characteristic.required else []
    notes += [f"one of the group {characteristic.exclusive}"] if characteristic.exclusive else []
    text.append(f"  {', '.join(notes)}", "not bold dim")
    return text


def _attributes(characteristic: Characteristic) -> Grid:
    grid = Grid(box=None, show_header=False, padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(max_width=28)
    grid.add_column(ratio=1)
    for attribute in characteristic.attributes:
        message = Text(attribute.message)
        message.append(f"  {attribute.code}", "dim")
        grid.add_row(f"{attribute.points / HUNDREDTHS:.2f}", attribute.label, message)
    return grid
