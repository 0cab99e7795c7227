"""Names screened by a service that answers as yente does."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from provider_server import FAULTS, Exchange, FakeProvider, body, providers, run

from app import wire
from app.evidence.providers.base import Match
from app.evidence.providers.collection import External

LEI = "529900T8BM49AURSDO55"
PROFILE = wire.Profile(
    wire.Business(
        "Acme  Trading GmbH", "DE-BY", aliases=["Acme"], registration_number="HRB 12345", lei=LEI,
        vat_number="DE136695976", incorporated_on=dt.date(2009, 5, 1),
    ),
    wire.Ownership(
        owners=[
            wire.Owner("Maria Musterfrau", "person", "DE", 60.0, dt.date(1970, 1, 1)),
            wire.Owner("Beta Holding S.A.", "company", "UK", registration_number="B 12345"),
            wire.Owner("The Trust", "trust"),
        ],
        directors=[wire.Director("Max Muster", "EL", dt.date(1975, 3, 2)), wire.Director("Somebody")],
    ),
)  # fmt: skip
SUBJECTS = ["/business/name", *(f"/ownership/owners/{i}/name" for i in range(3)),
            *(f"/ownership/directors/{i}/name" for i in range(2))]  # fmt: skip


def entity(**fields: Any) -> dict[str, Any]:
    whole = {
        "id": "NK-1", "caption": "ACME TRADING GMBH", "schema": "Company", "score": 0.9, "match": True,
        "datasets": ["us_ofac_sdn"], "referents": ["ofac-1"], "target": True, "features": {"name": 1.0},
        "properties": {"name": ["Acme Trading GmbH"], "topics": ["sanction"], "addressEntity": [{"id": "a"}]},
    }  # fmt: skip
    properties = {**whole["properties"], **fields.pop("properties", {})}  # type: ignore[dict-item]
    return {**whole, **fields, "properties": properties}


def answering(*results: Any, of: str = "q0", **more: Any) -> Any:
    """Answers every query with nothing, and one of them with these results."""

    async def behave(exchange: Exchange) -> None:
        queries = json.loads(exchange.body)["queries"]
        responses = {
            name: {"status": 200, "results": list(results) if name == of else [], "total": {"value": 0}, "query": {}}
            for name in queries
        }
        await exchange.answer({"responses": {**responses, **more}, "matcher": {}, "limit": 10})

    return behave


def ask(folder: Path, server: FakeProvider, more: str = "", profile: wire.Profile = PROFILE) -> External:
    found: list[External] = []

    async def scenario() -> None:
        async with server:
            text = f"  names:\n    kind: yente\n    url: {server.url}/api\n    timeout: 500ms\n{more}"
            async with providers(folder, text, {"TOKEN": "secret"}) as asked:
                found.append(await asked.gather(profile))

    run(scenario)
    return found[0]


def test_everyone_whom_the_profile_names_is_asked_for_in_one_request(tmp_path: Path) -> None:
    server = FakeProvider(answering())
    more = "    auth: {bearer_env: TOKEN}\n    dataset: sanctions\n    algorithm: logic-v1\n    threshold: 0.8\n"
    external = ask(tmp_path, server, more)
    assert (external.matches, external.facts, external.degraded) == ((), None, False)
    assert [(line.source, line.status) for line in external.evidence] == [("names", "ok")]
    [sent] = server.requests
    assert (sent.method, sent.target) == (
        "POST",
        "/api/match/sanctions?limit=5&threshold=0.8&algorithm=logic-v1",
    )
    assert sent.headers["authorization"] == "Bearer secret"
    assert json.loads(sent.body) == {
        "queries": {
            "q0": {
                "schema": "Company",
                "properties": {
                    "name": ["Acme  Trading GmbH", "Acme"], "jurisdiction": ["de"], "registrationNumber": ["HRB 12345"],
                    "leiCode": [LEI], "vatCode": ["DE136695976"], "incorporationDate": ["2009-05-01"],
                },
            },
            "q1": {
                "schema": "Person",
                "properties": {"name": ["Maria Musterfrau"], "country": ["de"], "birthDate": ["1970-01-01"]},
            },
            "q2": {
                "schema": "Company",
                "properties": {"name": ["Beta Holding S.A."], "country": ["gb"], "registrationNumber": ["B 12345"]},
            },
            "q3": {"schema": "LegalEntity", "properties": {"name": ["The Trust"]}},
            "q4": {
                "schema": "Person",
                "properties": {"name": ["Max Muster"], "country": ["gr"], "birthDate": ["1975-03-02"]},
            },
            "q5": {"schema": "LegalEntity", "properties": {"name": ["Somebody"]}},
        }
    }  # fmt: skip


def test_more_names_than_fit_in_a_request_are_several(tmp_path: Path) -> None:
    async def last(exchange: Exchange) -> None:
        queries = json.loads(exchange.body)["queries"]
        results = {name: {"results": [entity(id=query["properties"]["name"][0])]} for name, query in queries.items()}
        await exchange.answer({"responses": results})

    server = FakeProvider(last)
    external = ask(tmp_path, server, "    batch: 4\n")
    assert [len(json.loads(sent.body)["queries"]) for sent in server.requests] == [4, 2]
    assert [match.subject for match in external.matches] == SUBJECTS
    assert external.matches[5].entity_id == "Somebody"


def test_a_result_is_a_match_of_the_one_asked_for(tmp_path: Path) -> None:
    weak = entity(id="NK-2", score=0.69)
    external = ask(tmp_path, FakeProvider(answering(entity(), weak)))
    assert external.matches == (
        Match(
            "/business/name", "NK-1", "ACME TRADING GMBH", "Company", 0.9, "sanction", ("us_ofac_sdn",), ("sanction",),
            ("name",), "names",
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("topics", "kind"),
    [
        (["sanction"], "sanction"),
        (["role.pep", "sanction"], "sanction"),
        (["role.pep"], "pep"),
        (["sanction.linked", "role.rca"], "other"),
        (["crime"], "other"),
        ([], "other"),
    ],
)
def test_what_a_match_means_follows_from_its_topics(topics: list[str], kind: str, tmp_path: Path) -> None:
    external = ask(tmp_path, FakeProvider(answering(entity(properties={"topics": topics}))))
    assert [match.kind for match in external.matches] == [kind]


@pytest.mark.parametrize(
    ("query", "fields", "equal", "confirmed"),
    [
        ("q0", {"score": 1.0}, ("name",), False),
        ("q0", {"caption": "Other", "properties": {"name": ["Other"]}}, (), False),
        ("q0", {"caption": "Other", "properties": {"name": ["Other"], "alias": ["ACME"]}}, ("name",), False),
        ("q0", {"properties": {"registrationNumber": ["hrb-12345"]}}, ("name", "registration_number"), True),
        ("q0", {"caption": "B", "properties": {"name": ["B"], "registrationNumber": ["HRB12345"]}},
         ("registration_number",), False),
        ("q0", {"caption": "B", "properties": {"name": ["B"], "leiCode": [LEI.lower()]}}, ("lei",), True),
        ("q0", {"caption": "B", "properties": {"name": ["B"], "vatCode": ["DE 136695976"]}}, ("vat_number",), True),
        ("q1", {"caption": "maria  MUSTERFRAU", "properties": {"birthDate": ["1970-01-01"]}},
         ("name", "birth_date"), True),
        ("q1", {"caption": "Maria Musterfrau", "properties": {"birthDate": ["1970"]}}, ("name",), False),
        ("q1", {"caption": "M. M.", "properties": {"birthDate": ["1970-01-01"]}}, ("birth_date",), False),
        ("q5", {"caption": "Somebody", "properties": {"birthDate": [""]}}, ("name",), False),
    ],
)  # fmt: skip
def test_only_an_identifier_or_a_name_with_more_confirms(
    query: str, fields: Any, equal: tuple[str, ...], confirmed: bool, tmp_path: Path
) -> None:
    [match] = ask(tmp_path, FakeProvider(answering(entity(**fields), of=query))).matches
    assert (match.equal, match.is_confirmed) == (equal, confirmed)


WRONG: dict[str, Any] = {
    "a score above one": answering(entity(score=1.5)),
    "a score below zero": answering(entity(score=-0.1)),
    "a score of text": answering(entity(score="0.9")),
    "no score": answering({key: value for key, value in entity().items() if key != "score"}),
    "no id": answering(entity(id=None)),
    "a caption too long": answering(entity(caption="x" * 2000)),
    "properties of another kind": answering(entity(properties={"name": "Acme"})),
    "topics of another kind": answering(entity(properties={"topics": [{"id": 1}]})),
    "datasets of another kind": answering(entity(datasets="ofac")),
    "results of another kind": answering(q0={"results": {}}),
    "a query that failed": answering(q0={"status": 500, "results": []}),
    "another shape": body({"results": [entity()]}),
    "responses as a list": body({"responses": [[entity()]]}),
    "queries that were not answered": body({"responses": {}}),
    "one query that was not answered": body({"responses": {f"q{i}": {"results": []} for i in range(5)}}),
    "NaN as a score": body(b'{"responses": {"q0": {"results": [{"score": NaN}]}}}'),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_of_another_shape_is_invalid_and_no_match_is_taken_from_it(name: str, tmp_path: Path) -> None:
    external = ask(tmp_path, FakeProvider(WRONG[name]))
    assert external == External(None, (), (wire.Evidence("names", "invalid"),), degraded=True)


@pytest.mark.parametrize("name", ["status 500", "status 400", "silence", "a reset", "a gigabyte announced", "no JSON"])
def test_a_failure_is_not_no_match(name: str, tmp_path: Path) -> None:
    behaviour, status = FAULTS[name]
    external = ask(tmp_path, FakeProvider(behaviour))
    assert external == External(None, (), (wire.Evidence("names", status),), degraded=True)


def test_the_same_names_in_other_places_are_another_question(tmp_path: Path) -> None:
    one = wire.Profile(wire.Business("A", "DE"), wire.Ownership(owners=[wire.Owner("B")]))
    other = wire.Profile(wire.Business("A", "DE"), wire.Ownership(directors=[wire.Director("B")]))

    async def scenario() -> None:
        async with FakeProvider(answering(entity(), of="q1")) as server:
            text = f"  names:\n    kind: yente\n    url: {server.url}\n    timeout: 500ms\n"
            async with providers(tmp_path, text) as asked:
                found = [(await asked.gather(profile)).matches[0].subject for profile in (one, other, one)]
                assert found == ["/ownership/owners/0/name", "/ownership/directors/0/name", "/ownership/owners/0/name"]
                assert len(server.requests) == 2

    run(scenario)
