"""Numbers as people read them: with a unit, as few digits as say it, and never rounded across a bound."""

from __future__ import annotations

from math import floor, log10

from app.loadtest.results import Target

DIGITS = 3
UNKNOWN = "\u2013"
"""What stands for a figure that is not there."""
TIMES = "\u00d7"
MOST_DIGITS = 15


def number(value: float, digits: int = DIGITS) -> str:
    """So many significant digits, all of those before the point, thousands set apart."""
    if not value:
        return "0"
    places = max(0, digits - 1 - floor(log10(abs(value))))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def milliseconds(value: float, digits: int = DIGITS) -> str:
    """A time given in milliseconds."""
    if value >= 999.5:
        return f"{number(value / 1000, digits)} s"
    if 0 < value < 0.0995:
        return f"{number(value * 1000, digits)} µs"
    return f"{number(value, digits)} ms"


def percent(value: float, digits: int = DIGITS) -> str:
    """Per cent. What is a little below 100 is not shown as 100."""
    if 99 < value < 100:
        digits = max(digits, 3 - floor(log10(100 - value)))
    return f"{number(value, min(digits, MOST_DIGITS))} %"


def memory(value: float, digits: int = DIGITS) -> str:
    """A size given in bytes."""
    if value >= 999.5e6:
        return f"{number(value / 1e9, digits)} GB"
    return f"{number(value / 1e6, digits)} MB"


def duration(value_s: float) -> str:
    """A time given in seconds."""
    if value_s < 60:
        return f"{number(value_s)} s"
    minutes, seconds = divmod(round(value_s), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{value} {unit}" for value, unit in parts if value)


def clock(value_s: float) -> str:
    """A moment in seconds from the start."""
    minutes, seconds = divmod(round(value_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def ratio(value: float) -> str:
    """How many times as much. What is not 1 is not shown as 1."""
    text = number(value, 3 if value >= 1 else 2)
    return f"{number(value, 4) if text == '1' else text} {TIMES}"


def of_unit(value: float, unit: str, digits: int = DIGITS) -> str:
    """A value in the unit of a target."""
    match unit:
        case "ms":
            return milliseconds(value, digits)
        case "s":
            return milliseconds(value * 1000, digits)
        case "%":
            return percent(value, digits)
        case "bytes":
            return memory(value, digits)
        case _:
            return f"{number(value, digits)}{'' if unit.startswith('/') else ' '}{unit}".rstrip()


def bound(target: Target) -> str:
    """What a target asks for."""
    return f"{'<' if target.at_most else '≥'} {of_unit(target.bound, target.unit, MOST_DIGITS)}"


def measured(target: Target) -> str:
    """What was measured for a target, with as many digits as show on which side of the bound it is."""
    value = target.measured
    if value is None:
        return UNKNOWN
    digits = DIGITS
    while digits < MOST_DIGITS and _side(float(f"{value:.{digits}g}"), target.bound) != _side(value, target.bound):
        digits += 1
    return of_unit(value, target.unit, digits)


def _side(value: float, of: float) -> int:
    return (value > of) - (value < of)
