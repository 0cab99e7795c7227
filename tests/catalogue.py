"""What a database's tables are, as far as it decides whether statements written for them work: read, and compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from databases import query

Named = Mapping[str, str]

_TABLES = """\
SELECT c.oid, c.oid::regclass::text AS name FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"""

_COLUMNS = f"""\
SELECT t.name, a.attname AS column, a.attnotnull AS is_needed,
    a.atthasdef OR a.attidentity <> '' AS has_default,
    format_type(a.atttypid, a.atttypmod)
        || coalesce(' COLLATE ' || nullif(a.attcollation, y.typcollation)::regcollation, '')
        || CASE WHEN a.attgenerated <> '' THEN ' GENERATED' ELSE '' END AS kind
FROM ({_TABLES}) t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type y ON y.oid = a.atttypid"""

_RULES = f"""\
SELECT t.name, 'constraint ' || o.conname AS rule, pg_get_constraintdef(o.oid) AS text
FROM ({_TABLES}) t JOIN pg_constraint o ON o.conrelid = t.oid AND o.contype <> 'n'
UNION ALL SELECT t.name, 'unique index ' || i.indexrelid::regclass, pg_get_indexdef(i.indexrelid)
FROM ({_TABLES}) t JOIN pg_index i ON i.indrelid = t.oid AND i.indisunique
    AND NOT EXISTS (SELECT 1 FROM pg_constraint o WHERE o.conindid = i.indexrelid)
UNION ALL SELECT t.name, 'trigger ' || g.tgname, pg_get_triggerdef(g.oid)
FROM ({_TABLES}) t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
UNION ALL SELECT t.name, 'row security', '' FROM ({_TABLES}) t JOIN pg_class c ON c.oid = t.oid AND c.relrowsecurity
UNION ALL SELECT t.name, 'rule ' || r.rulename, pg_get_ruledef(r.oid)
FROM ({_TABLES}) t JOIN pg_rewrite r ON r.ev_class = t.oid"""


class Column(NamedTuple):
    """kind: its type, and whatever else decides what it takes.  is_needed: it takes no null."""

    kind: str
    is_needed: bool
    has_default: bool


class Table(NamedTuple):
    """rules: constraints, unique indexes, triggers and the like, by their names."""

    columns: Mapping[str, Column]
    rules: Named


Tables = Mapping[str, Table]


def tables(url: str) -> Tables:
    """All tables by name; partitions are as their table is."""
    columns: dict[str, dict[str, Column]] = {}
    for row in query(url, _COLUMNS):
        column = Column(row["kind"], row["is_needed"], row["has_default"])
        columns.setdefault(row["name"], {})[row["column"]] = column
    rules: dict[str, dict[str, str]] = {}
    for row in query(url, _RULES):
        rules.setdefault(row["name"], {})[row["rule"]] = row["text"]
    return {name: Table(each, rules.get(name, {})) for name, each in columns.items()}


def contracted(before: Tables, after: Tables) -> set[str]:
    """What worked before and may not after, each in a few words. New tables take nothing from anybody."""
    found = {f"{name} is gone" for name in before.keys() - after.keys()}
    for name in before.keys() & after.keys():
        found.update(f"{name}{what}" for what in _of_columns(before[name].columns, after[name].columns))
        old, new = before[name].rules, after[name].rules
        found.update(f"{name}: {rule} is gone" for rule in old.keys() - new.keys())
        found.update(f"{name}: {rule} is new" for rule in new.keys() - old.keys())
        found.update(f"{name}: {rule} is another" for rule in old.keys() & new.keys() if old[rule] != new[rule])
    return found


def _of_columns(before: Mapping[str, Column], after: Mapping[str, Column]) -> set[str]:
    found = {f".{name} is gone" for name in before.keys() - after.keys()}
    for name, new in after.items():
        old = before.get(name)
        is_asked_for = new.is_needed and not new.has_default
        if old is None:
            if is_asked_for:
                found.add(f".{name} is new and has to be given")
            continue
        if old.kind != new.kind:
            found.add(f".{name} is {new.kind} and was {old.kind}")
        if new.is_needed and not old.is_needed:
            found.add(f".{name} takes no null any more")
        if old.is_needed and not new.is_needed:
            found.add(f".{name} may be null now")
        if old.has_default and not new.has_default:
            found.add(f".{name} has no default any more")
    return found
