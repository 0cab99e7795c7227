"""API keys: recognised on each request, made and ended by people, and the first one of a new service."""

from __future__ import annotations

from app.keys.first import first_key
from app.keys.issue import Keys
from app.keys.ring import Ended, Keyring, Principal

__all__ = ["Ended", "Keyring", "Keys", "Principal", "first_key"]
