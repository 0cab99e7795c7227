"""`kyb serve` and `kyb config`: the service as the settings make it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from app.cli import setup
from app.cli.exits import FAILED, Stopped
from app.cli.output import Output
from app.registry import ModelUnknown
from app.settings import effective
from core.model import ModelRefused


def serve(config: str | None, overrides: Mapping[str, str | None]) -> None:
    """Start the service and stay until it is told to stop."""
    loaded = setup.settings(config, overrides)
    from app.server import StartRefused, run

    try:
        run(loaded)
    except StartRefused as error:
        raise Stopped(str(error), FAILED) from None
    except ModelRefused as error:
        raise setup.refused(error) from None
    except ModelUnknown as error:
        raise Stopped(str(error), FAILED) from None


def show_config(config: str | None, as_json: bool) -> None:
    """Every setting in force with its origin: aligned and never wrapped, so that it can be searched."""
    loaded = setup.settings(config, {})
    lines = effective(loaded)
    with Output() as out:
        if as_json:
            listed = [
                {"name": name, "value": None if loaded.origins[name].value is None else value, "origin": origin}
                for name, value, origin in lines
            ]
            answer = {"config_file": loaded.config_file, "settings": listed}
            out.write_bytes(msgspec.json.format(msgspec.json.encode(answer)) + b"\n")
            return
        shown = [(name, value or "-", origin) for name, value, origin in lines]
        first, second = (max(len(line[column]) for line in shown) for column in (0, 1))
        for name, value, origin in shown:
            out.write(f"{name:{first}}  {value:{second}}  {origin}\n")
