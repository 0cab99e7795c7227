"""Reading a model file, whole: parts, then the checks of the whole, then everything that is wrong at once."""

from __future__ import annotations

import hashlib

from core import checks, reader
from core.catalogue import Catalogue
from core.document import Faults
from core.model import Model, ModelRefused


def load(text: bytes, name: str, catalogue: Catalogue) -> Model:
    """Read and check one model file. name: for messages. Raises ModelRefused with every fault."""
    faults = Faults()
    model = reader.read_model(text, hashlib.sha256(text).digest(), catalogue, faults)
    if model is not None:
        checks.check(model, faults)
    if faults.found or model is None:
        raise ModelRefused(name, faults.found)
    return model
