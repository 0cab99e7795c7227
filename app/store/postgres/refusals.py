"""Why a database cannot be used, and what to do about it."""

from __future__ import annotations

import os

import asyncpg

from app.store.base import StoreRefused, StoreUnavailable


def refusal(error: BaseException, place: str, *, setting: str = "DATABASE_URL") -> StoreRefused:
    """What the failure of connecting means to whoever started it. setting: what the database was named in."""
    cause = error.__cause__ if isinstance(error, StoreUnavailable) and error.__cause__ is not None else error
    match cause:
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return StoreRefused(
                f"The database {place} does not let this user in.", f"Check user and password of {setting}."
            )
        case asyncpg.InvalidCatalogNameError():
            return StoreRefused(f"There is no database {place}.", f"Create it, or name another in {setting}.")
        case asyncpg.InsufficientPrivilegeError():
            return StoreRefused(
                f"The database {place} does not let this user do it: {cause}.",
                f"Grant it what it lacks, or name another user in {setting}.",
            )
        case asyncpg.TargetServerAttributeNotMatched() | asyncpg.ReadOnlySQLTransactionError():
            return StoreRefused(
                f"The database {place} takes no writes: it is a standby, or set to read only.",
                "Give the address of the primary.",
            )
        case asyncpg.LockNotAvailableError() | asyncpg.DeadlockDetectedError():
            return StoreRefused(
                f"The tables of the database {place} are held by another transaction.",
                "End it, or repeat this when it has ended.",
            )
        case asyncpg.TooManyConnectionsError():
            return StoreRefused(
                f"The database {place} has no connection left.",
                "Raise its max_connections, or lower DB_MAX_CONNECTIONS.",
            )
        case TimeoutError():
            return StoreRefused(f"The database {place} does not answer.", f"Check {setting}, and that it runs.")
        case OSError():
            return StoreRefused(
                f"The database {place} cannot be reached: {_words(cause)}.",
                f"Check {setting}, and that it runs.",
            )
    return StoreRefused(f"The database {place} cannot be used: {cause}.", f"Check {setting}.")


def _words(error: OSError) -> str:
    """Why the system refused, in its own words; asyncio writes the call and the address in their place."""
    number = error.errno or 0
    return os.strerror(number) if number > 0 else str(error.strerror or error)
