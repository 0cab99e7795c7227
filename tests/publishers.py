"""The three lists that the shipped model requires, whole and invented, from a publisher on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from watchlists import put

from app.watchlists.sources import SOURCES

SYLLABLES = ("ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "wu", "za")
FILES = {
    "ofac-sdn": ("sdn.csv", "alt.csv", "add.csv"),
    "un-consolidated": ("un.xml",),
    "eu-consolidated": ("eu.xml",),
}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: nobody reads it."""


@contextmanager
def publishing(folder: Path) -> Iterator[str]:
    """The value of WATCHLIST_ADDRESSES with which `kyb watchlist update` comes here, while the block runs."""
    put(folder, _lists())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield ", ".join(" ".join([name, *(f"{url}/{file}" for file in files)]) for name, files in FILES.items())
        finally:
            server.shutdown()
            thread.join()


def _name(number: int) -> str:
    """Two words that are nobody's, another pair for each number up to 65,535."""
    digits = [SYLLABLES[number >> shift & 15] for shift in (12, 8, 4, 0)]
    return f"{''.join(digits[:2])}{digits[0]}x {''.join(digits[2:])}{digits[3]}x".title()


def _lists() -> dict[str, str | bytes]:
    null = ",".join(["-0- "] * 8)
    ofac, un, eu = (range(SOURCES[name].minimum) for name in FILES)
    return {
        "sdn.csv": "".join(f'{n + 1},"{_name(n)}",-0- ,"TEST",{null}\r\n' for n in ofac),
        "alt.csv": '1,1,"aka","Qux Qax",-0- \r\n',
        "add.csv": '1,1,-0- ,"Ghent","Belgium",-0- \r\n',
        "un.xml": '<?xml version="1.0" encoding="UTF-8"?>\n<CONSOLIDATED_LIST dateGenerated="2026-11-01T00:00:00Z">'
        "\n<INDIVIDUALS/><ENTITIES>"
        + "".join(
            f"<ENTITY><DATAID>{n}</DATAID><FIRST_NAME>{_name(n + 10_000)}</FIRST_NAME>"
            f"<UN_LIST_TYPE>Test</UN_LIST_TYPE><REFERENCE_NUMBER>TEe.{n}</REFERENCE_NUMBER></ENTITY>"
            for n in un
        )
        + "</ENTITIES></CONSOLIDATED_LIST>\n",
        "eu.xml": '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<export xmlns="http://eu.europa.ec/fpi/fsd/export" generationDate="2026-11-01T00:00:00Z" globalFileId="1">\n'
        + "".join(
            f'<sanctionEntity logicalId="{n + 1}"><regulation programme="TEST"/>'
            '<subjectType code="enterprise" classificationCode="E"/>'
            f'<nameAlias wholeName="{_name(n + 20_000)}" strong="true"/></sanctionEntity>'
            for n in eu
        )
        + "</export>\n",
    }
