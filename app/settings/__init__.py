"""Configuration file and environment into one frozen structure; the only reader of the environment.

Values come from the packaged `defaults.yaml`, the chosen file, the environment and the command line, the later over the
earlier. Whatever is wrong in any of them is reported at once, also where a later place would have overruled it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from app.settings.kinds import Malformed, is_loopback
from app.settings.nodes import Outline
from app.settings.provider_section import read_providers
from app.settings.providers import AnyProvider
from app.settings.sources import Fault, Given, Nested, from_environment, from_file, from_options
from app.settings.tree import KEYS, SECTIONS, Settings
from app.settings.urls import is_postgres, redis_database, redis_hosts

__all__ = ["DEFAULTS_FILE", "Effective", "Fault", "Loaded", "Settings", "SettingsError", "effective", "load"]

DEFAULTS_FILE = Path(__file__).parent.parent / "defaults.yaml"
DEFAULT = "default"

_ORDERED = (
    ("database.min_connections", "database.max_connections", True),
    ("redis.min_idle_conns", "redis.pool_size", True),
    ("scaling.min_replicas", "scaling.max_replicas", True),
    ("server.body_limit", "server.batch_body_limit", True),
    ("server.request_deadline", "server.shutdown_grace", False),
    ("database.timeout", "server.request_deadline", True),
    ("database.command_timeout", "database.timeout", True),
    ("database.statement_timeout", "database.command_timeout", True),
    ("database.lock_timeout", "database.statement_timeout", True),
    ("database.acquire_timeout", "database.timeout", True),
    ("database.connect_timeout", "database.timeout", True),
    ("database.busy_timeout", "database.timeout", True),
    ("idempotency.wait", "database.timeout", True),
)
"""Pairs of settings whose first must not exceed the second; may they be equal?"""

_OF_POSTGRES = {"database.direct_url": None, "database.pooler": "none"}
"""Settings that only PostgreSQL has a use for, and the value that asks for nothing."""


class Effective(Struct, frozen=True):
    """A value in force and where it came from: `default`, `file PATH:LINE`, `environment NAME` or `option --NAME`."""

    value: Any
    origin: str

    def __repr__(self) -> str:
        return f"Effective(..., {self.origin!r})"


class Loaded(Struct, frozen=True):
    """The settings, the origin of each by its dotted name, and the file that was chosen, if any.

    providers: what is in force of them, as `effective` shows it.
    """

    settings: Settings
    origins: Mapping[str, Effective]
    config_file: str | None
    providers: tuple[tuple[str, str, str], ...] = ()


class SettingsError(Exception):
    """The settings cannot be used; `faults` lists everything that is wrong with them."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, faults)))


def load(
    environ: Mapping[str, str] | None = None,
    config_path: str | None = None,
    overrides: Mapping[str, object] = MappingProxyType({}),
) -> Loaded:
    """The settings in force. `environ` None is the environment of this process; `overrides` are dotted names
    with the values of command-line options (None = not given). Raises SettingsError with every fault."""
    environ = os.environ if environ is None else environ
    found: dict[str, Effective] = {}
    faults: list[Fault] = []
    faulty: set[str] = set()
    nested: Nested | None = None
    path = environ.get("CONFIG_FILE") if config_path is None else config_path
    for given in _given(
        environ, path, "environment CONFIG_FILE" if config_path is None else "option --config", overrides
    ):
        if isinstance(given, Fault):
            faults.append(given)
            continue
        if isinstance(given, Nested):
            nested = given
            continue
        try:
            found[given.name] = Effective(_value(given), given.origin)
        except Malformed as error:
            faulty.add(given.name)
            faults.append(Fault(given.where, str(error), f"give {KEYS[given.name].kind.right}"))
    sound = {name: held for name, held in found.items() if name not in faulty}
    faults.extend(_disagreements(sound))
    outline = Outline(nested.path if nested else "")
    providers = read_providers(nested.node, outline, environ) if nested else ()
    faults.extend(outline.faults)
    faults.extend(_of_providers(providers, dict((n, o) for n, _, o in outline.shown), sound))
    if faults:
        raise SettingsError(faults)
    sections = {
        section: structure(**{name: found[f"{section}.{name}"].value for name in structure.__struct_fields__})
        for section, structure in SECTIONS.items()
    }
    return Loaded(
        Settings(**sections, providers=providers),  # type: ignore[arg-type]
        MappingProxyType({name: found[name] for name in KEYS}),
        path,
        tuple(outline.shown),
    )


def effective(loaded: Loaded) -> list[tuple[str, str, str]]:
    """Dotted name, value and origin of every setting, to be shown: passwords masked, no value written as nothing."""
    return [
        (name, "" if held.value is None else KEYS[name].kind.show(held.value), held.origin)
        for name, held in loaded.origins.items()
    ] + list(loaded.providers)


def _given(
    environ: Mapping[str, str], path: str | None, asked_by: str, overrides: Mapping[str, object]
) -> Iterator[Given | Nested | Fault]:
    for given in from_file(str(DEFAULTS_FILE), "package"):
        yield Given(given.name, given.text, DEFAULT, given.where) if isinstance(given, Given) else given
    if path is not None:
        yield from from_file(path, asked_by)
    yield from from_environment(environ)
    yield from from_options(overrides)


def _value(given: Given) -> Any:
    key = KEYS[given.name]
    text = "" if given.text is None else given.text.strip()
    if text:
        return key.kind.parse(text)
    if key.optional:
        return None
    raise Malformed("there is no value")


def _of_providers(
    providers: tuple[AnyProvider, ...], origins: Mapping[str, str], found: Mapping[str, Effective]
) -> Iterator[Fault]:
    """What of the providers does not go with the settings of requests. origins: by dotted name."""
    for provider in providers:
        for name, value, other, wanted in (
            ("timeout", provider.timeout, "server.request_deadline", "less than"),
            ("concurrency", provider.concurrency, "concurrency.worker_pool_size", "at most"),
        ):
            dotted, held = f"providers.{provider.name}.{name}", found.get(other)
            if held is None or value < held.value or (wanted == "at most" and value == held.value):
                continue
            shown, limit = (KEYS[other].kind.show(number) for number in (value, held.value))
            problem = f"{shown} does not go with {other} = {limit} ({held.origin})"
            yield Fault(f"{origins[dotted]}: {dotted}", problem, f"give {wanted} {limit}, or change {other}")


def _of_cluster(found: Mapping[str, Effective]) -> Iterator[Fault]:
    """What the URL of Redis and its being a cluster's have against each other."""
    url, cluster = found.get("redis.url"), found.get("redis.cluster")
    if url is None or cluster is None:
        return
    at_url, at_cluster = f"{url.origin}: redis.url", f"{cluster.origin}: redis.cluster"
    if not cluster.value:
        if url.value is not None and len(redis_hosts(url.value)) > 1:
            problem = f"it names several servers, and redis.cluster ({cluster.origin}) says that they are no cluster"
            yield Fault(at_url, problem, "name one, or give redis.cluster true")
    elif url.value is None:
        yield Fault(at_cluster, "redis.url names no node of it", "give redis.url, or leave redis.cluster out")
    elif not redis_hosts(url.value):
        yield Fault(at_url, "a cluster is not reached by a socket file", "give redis://host:port of one of its nodes")
    elif redis_database(url.value):
        yield Fault(at_url, "a cluster has the database 0 alone", "leave the number out")


def _disagreements(found: Mapping[str, Effective]) -> Iterator[Fault]:
    """The faults that show only between settings; those that are faulty themselves are absent here."""
    host, enabled = found.get("server.host"), found.get("auth.enabled")
    if host and enabled and not enabled.value and not is_loopback(host.value):
        problem = f"without authentication the service binds to loopback only, not to {host.value}"
        yield Fault(f"{enabled.origin}: auth.enabled", problem, "give true, or server.host 127.0.0.1")
    tier, tiers = found.get("limits.default_tier"), found.get("limits.tiers")
    if tier and tiers and tier.value not in tiers.value:
        problem = f"there is no tier {tier.value} in limits.tiers ({tiers.origin})"
        yield Fault(f"{tier.origin}: limits.default_tier", problem, f"give one of {', '.join(tiers.value)}")
    hashing, signing = found.get("auth.key_hash_secret"), found.get("audit.signing_key")
    if hashing and signing and hashing.value is not None and hashing.value == signing.value:
        problem = f"it is the same as auth.key_hash_secret ({hashing.origin}), so whoever learns one has both"
        yield Fault(f"{signing.origin}: audit.signing_key", problem, "give another, such as of openssl rand -hex 32")
    model_id, model_path = found.get("model.id"), found.get("model.path")
    if model_id and model_path and model_id.origin != DEFAULT and model_path.value is not None:
        problem = f"both model.id ({model_id.origin}) and model.path ({model_path.origin}) select a model"
        yield Fault(f"{model_path.origin}: model.path", problem, "give one of them")
    url = found.get("database.url")
    for name, nothing in _OF_POSTGRES.items():
        held = found.get(name)
        if url and held and held.value != nothing and not is_postgres(url.value):
            problem = f"it is for PostgreSQL, and database.url ({url.origin}) names the embedded database"
            yield Fault(f"{held.origin}: {name}", problem, f"give database.url of PostgreSQL, or leave {name} out")
    yield from _of_cluster(found)
    for low_name, high_name, may_equal in _ORDERED:
        low, high = found.get(low_name), found.get(high_name)
        if low is None or high is None or high.value is None:
            continue
        if low.value < high.value or (may_equal and low.value == high.value):
            continue
        name, held, other, other_held, wanted = (
            (low_name, low, high_name, high, "at most" if may_equal else "less than")
            if low.origin != DEFAULT
            else (high_name, high, low_name, low, "at least" if may_equal else "more than")
        )
        show = KEYS[name].kind.show
        yield Fault(
            f"{held.origin}: {name}",
            f"{show(held.value)} does not go with {other} = {show(other_held.value)} ({other_held.origin})",
            f"give {wanted} {show(other_held.value)}, or change {other}",
        )
