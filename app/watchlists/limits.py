"""How much of a file is read before it is refused."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True):
    """Bounds on a list, so that reading one takes bounded memory and time whatever the file holds.

    file_bytes: of each file.  line_bytes: of one line of text.  entities: of a list.
    entry_values: names, addresses, numbers and so on of one entry.  text_chars: of a name or another value; what is
    longer is cut, and counted.
    """

    file_bytes: int = 1024 * 1024 * 1024
    line_bytes: int = 8 * 1024 * 1024
    entities: int = 5_000_000
    entry_values: int = 20_000
    text_chars: int = 512
