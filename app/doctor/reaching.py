"""Looking a host's name up in bounded time."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Any


class Unknown(Exception):
    """The name leads nowhere, or nobody said in time where; the text says which."""


async def looked_up(host: str, port: int, within_s: float) -> list[str]:
    """The addresses of a host. Raises Unknown.

    # Design: in a thread that nobody waits for when the command ends. The system's look-up cannot be ended, and takes
    # longer than anybody at a terminal waits where no name server answers.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def tell(found: Any) -> None:
        if answer.done():
            return
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def ask() -> None:
        found: Any
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except (OSError, UnicodeError) as error:
            found = Unknown(f"the name {host} cannot be looked up: {_words(error)}")
        # The command may have ended in the meantime, and its loop with it.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    try:
        async with asyncio.timeout(within_s):
            return await answer
    except TimeoutError:
        raise Unknown(f"the name {host} cannot be looked up: no name server answers within {within_s:g} s") from None


def _words(error: Exception) -> str:
    words = getattr(error, "strerror", None) or "it is no name of a host"
    return str(words[:1].lower() + words[1:])
