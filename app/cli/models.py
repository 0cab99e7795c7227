"""`kyb model`: check a model file, show what a model scores, list the models packaged."""

from __future__ import annotations

from pathlib import Path

import msgspec

from app import wire
from app.cli import setup
from app.cli.exits import Stopped
from app.cli.modelview import best, points, print_model, worst
from app.cli.output import Output
from app.cli.source import Source
from app.registry import packaged
from core.model import definition
from core.reader import tree_of

FILE_BYTES = 16 << 20


def check(file: str) -> None:
    """Read a model file; say what is in it, or everything that is wrong with it."""
    model = setup.from_text(_content(file), file)
    lines = [
        f"{model.key} is sound: {model.title}",
        f"  sha256           {model.sha256.hex()}",
        f"  released         {model.released}",
        f"  characteristics  {len(model.characteristics)}",
        f"  features         {len(model.features)}",
        f"  tables           {len(model.tables)}",
        f"  overrides        {len(model.overrides)}",
        f"  bands            {', '.join(f'{level} from {points(mark)}' for level, mark in model.bands)}",
        f"  scores           {points(model.base + best(model))} to {points(model.base + worst(model))}",
    ]
    for category in model.categories:
        count = sum(c.category == category.name for c in model.characteristics)
        most = points(worst(model, category.name))
        lines.append(f"  {category.name:15}  {count:2} characteristics, at most {most} points")
    with Output() as out:
        out.write("\n".join(lines) + "\n")


def show(which: str | None, as_json: bool, config: str | None) -> None:
    """which: `id@version`, a file, or None for the selected model."""
    active = None
    if which is None:
        model = setup.selected(setup.settings(config, {}))
        active = model.sha256
    elif which in packaged() or not _is_path(which):
        model = setup.from_package(which)
    else:
        model = setup.from_text(_content(which), which)
    with Output() as out:
        if as_json:
            if active is None:
                active = _selected_sha256(config)
            detail = wire.ModelDetail(
                id=model.id,
                version=model.version,
                sha256=model.sha256.hex(),
                title=model.title,
                active=model.sha256 == active,
                definition=definition(tree_of(model.text)),
            )
            out.write_bytes(msgspec.json.encode(detail) + b"\n")
            return
        print_model(out.console(), model)


def show_list(as_json: bool, config: str | None) -> None:
    """The packaged models and the selected one, which may be a file."""
    loaded = setup.settings(config, {})
    selected = setup.selected(loaded)
    models = [setup.from_package(key) for key in packaged()]
    if all(model.sha256 != selected.sha256 for model in models):
        models.append(selected)
    summaries = [
        wire.ModelSummary(m.id, m.version, m.sha256.hex(), m.title, m.sha256 == selected.sha256) for m in models
    ]
    with Output() as out:
        if as_json:
            out.write_bytes(msgspec.json.encode(wire.ModelList(summaries)) + b"\n")
            return
        width = max(len(model.key) for model in models)
        for model, summary in zip(models, summaries, strict=True):
            mark = "* " if summary.active else "  "
            out.write(f"{mark}{model.key:{width}}  {model.released}  {summary.sha256[:12]}  {model.title}\n")
        out.write("* is the model that the settings select\n")


def _content(file: str) -> bytes:
    with Source(file) as source:
        text = source.whole(FILE_BYTES)
    if text is None:
        raise Stopped(f"{file} is larger than {FILE_BYTES >> 20} MiB, which is no model file")
    return text


def _is_path(which: str) -> bool:
    return which == "-" or "/" in which or Path(which).suffix in (".yaml", ".yml") or Path(which).exists()


def _selected_sha256(config: str | None) -> bytes | None:
    """Of the selected model; None where the settings select none that can be used."""
    try:
        return setup.selected(setup.settings(config, {})).sha256
    except Stopped:
        return None
