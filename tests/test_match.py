"""POST /match as a client of yente uses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
from screened import party, registered
from service import Client, Json, Service, serving
from test_dispositions import SOON, bring

from app.yente import MATCHER
from core.entities import Identifier
from core.matches import PartKind

ENTRIES = (
    party("w1", "Veridian Shadow Trading", identifiers=registered("HE 900417", "CY"), countries=("CY",)),
    party("v1", "Morning Grebe", schema="Vessel", identifiers=(Identifier("imo", "IMO 9999917"),)),
)
PEOPLE = (
    party("p1", "Maria Musterfrau", kind="pep", schema="Person", birth_dates=("1970-01-01",)),
    party("p2", "Maria Musterfraud", schema="Person", birth_dates=("1980-01-01",)),
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("match"), config=SOON) as running:
        bring(running, *ENTRIES, name="firms")
        bring(running, *PEOPLE, name="people")
        yield running


@pytest.fixture
def client(service: Service) -> Client:
    return service.client()


def query(schema: str, **properties: Json) -> Json:
    return {"queries": {"q": {"schema": schema, "properties": properties}}}


def results(client: Client, sent: Json, dataset: str = "default", **parameters: Json) -> list[Json]:
    answer = client.post(f"/match/{dataset}", sent, **parameters)
    assert answer.status == 200, answer
    found: list[Json] = answer.json["responses"]["q"]["results"]
    return found


def test_the_answer_has_every_member_that_a_client_of_yente_reads(client: Client) -> None:
    sent = query("Company", name=["Veridian Shadow Trading Ltd"], jurisdiction=["cy"])
    answer = client.post("/match/default", sent).json
    response = answer["responses"]["q"]
    assert response["status"] == 200
    assert response["total"] == {"value": 1, "relation": "eq"}
    assert response["query"] == sent["queries"]["q"]
    [result] = response["results"]
    assert (result["id"], result["caption"], result["schema"]) == ("w1", "Veridian Shadow Trading", "Organization")
    assert result["properties"]["name"] == ["Veridian Shadow Trading"]
    assert result["properties"]["registrationNumber"] == ["HE 900417"]
    assert result["properties"]["topics"] == ["sanction"]
    assert result["datasets"] == ["firms"]
    assert result["match"] is True
    assert result["target"] is True
    assert 0.9 < result["score"] <= 1
    assert result["referents"] == []
    assert {"first_seen", "last_seen", "last_change", "features"} <= result.keys()
    assert all({"score", "detail"} <= told.keys() for told in result["explanations"].values())
    assert "veridian" in result["explanations"]["equal"]["detail"]
    assert answer["limit"] == 5
    assert result["features"].keys() <= answer["matcher"].keys()
    assert all({"description", "coefficient", "url"} <= told.keys() for told in answer["matcher"].values())


def test_every_part_of_a_score_is_told_in_the_matcher() -> None:
    assert {"name", *get_args(PartKind)} == MATCHER.keys()


@pytest.mark.parametrize(
    "parts",
    [
        {"firstName": "Maria", "lastName": ["Musterfrau"]},
        {"firstName": ["X", "Maria"], "middleName": "Q", "lastName": "Musterfrau"},
    ],
)
def test_a_person_is_found_by_the_parts_of_a_name(client: Client, parts: Json) -> None:
    assert results(client, query("Person", **parts))[0]["id"] == "p1"


def test_many_parts_of_a_name_are_bounded(client: Client) -> None:
    many = {part: [f"{part} {n}" for n in range(100)] for part in ("firstName", "middleName", "fatherName", "lastName")}
    assert results(client, query("Person", **many)) == []


def test_a_threshold_below_the_usual_cutoff_shows_what_matches(client: Client) -> None:
    sent = query("Company", name=["Veridian Grebe Outfitters"])
    assert results(client, sent, cutoff=0.5) == results(client, sent) == []
    low = results(client, sent, threshold=0.2)
    assert low
    assert all(one["match"] for one in low)


def test_default_is_every_list_and_a_name_is_one(client: Client) -> None:
    sent = query("Person", name="Maria Musterfrau")
    assert [result["id"] for result in results(client, sent)] == ["p1", "p2"]
    assert [result["id"] for result in results(client, sent, "people")] == ["p1", "p2"]
    assert results(client, sent, "firms") == []
    assert client.post("/match/nowhere", sent).status == 404


def test_the_birth_date_decides_between_namesakes(client: Client) -> None:
    sent = query("Person", name=["Maria Musterfrau"], birthDate=["1980-01-01"])
    scores = {result["id"]: result["score"] for result in results(client, sent)}
    assert scores["p2"] > scores["p1"]


def test_an_identifier_finds_without_a_name(client: Client) -> None:
    assert [one["id"] for one in results(client, query("Vessel", imoNumber=["IMO9999917"]))] == ["v1"]
    assert [one["id"] for one in results(client, query("Company", registrationNumber="HE-900417"))] == ["w1"]
    assert [one["id"] for one in results(client, query("Company", idNumber="HE-900417"))] == ["w1"]


@pytest.mark.parametrize("country", ["cy", "CY", "Cyprus", "cy-04"])
def test_a_country_counts_by_its_code_and_by_its_name(client: Client, country: str) -> None:
    [found] = results(client, query("Company", name=["Veridian Shadow Trade"], jurisdiction=[country]))
    assert found["features"]["country"] > 0
    [found] = results(client, query("Company", registrationNumber=["HE 900417"], jurisdiction=[country]))
    assert found["features"]["country"] > 0
    [found] = results(client, query("Company", registrationNumber=["HE 900417"], jurisdiction=["Malta"]))
    assert found["features"]["country"] < 0


def test_threshold_cutoff_and_limit(client: Client) -> None:
    sent = query("Person", name=["Maria Musterfrau"])
    assert [one["match"] for one in results(client, sent, threshold=0.99)] == [True, False]
    assert [one["id"] for one in results(client, sent, cutoff=0.99)] == ["p1"]
    assert [one["id"] for one in results(client, sent, limit=1)] == ["p1"]


def test_unknown_fields_and_parameters_are_ignored_here_alone(client: Client) -> None:
    sent = {
        "weights": {"x": 1},
        "queries": {"q": {"id": "mine", "schema": "Person", "properties": {"name": "Maria Musterfrau", "hair": ["x"]}}},
    }
    assert len(results(client, sent, algorithm="logic-v2", fuzzy=True)) == 2
    assert client.get("/v1/watchlists", algorithm="x").status == 422


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"queries": {}}, 422),
        ({}, 422),
        ({"queries": {"q": {"schema": "Sandwich", "properties": {}}}}, 422),
        ({"queries": {"q": {"properties": {"name": ["x"]}}}}, 422),
        ({"queries": {"q": {"schema": "Person", "properties": []}}}, 422),
        ({"queries": {f"q{n}": {"schema": "Person"} for n in range(501)}}, 413),
        (b"{", 400),
        (b'{"queries":{"q":{"schema":"Person"}},"queries":{}}', 422),
    ],
)
def test_what_is_wrong_is_refused(client: Client, sent: Json, status: int) -> None:
    assert client.post("/match/default", sent).status == status


def test_a_query_that_is_refused_is_named_with_what_is_wrong(client: Client) -> None:
    good = {"schema": "Person", "properties": {}}
    sent = {"queries": {"a": good, "b": {"schema": "Compny"}, "c": None, "d": {"schema": "Person", "properties": 1}}}
    refused = client.post("/match/default", sent)
    told = {fault["pointer"]: fault["detail"] for fault in refused.json["errors"]}
    assert told.keys() == {"/queries/b/schema", "/queries/c", "/queries/d/properties"}
    assert told["/queries/b/schema"].startswith("expected one of Person, Organization, Company")
    assert told["/queries/b/schema"].endswith("did you mean Company?")
    assert told["/queries/c"] == "expected an object with schema, got null"
    for queries, detail in (([], "expected an object of at least 1 members, got a list"),
                            ({}, "expected an object of at least 1 members, got 0")):  # fmt: skip
        assert client.post("/match/default", {"queries": queries}).json["errors"] == [
            {"pointer": "/queries", "detail": detail}
        ]


@pytest.mark.parametrize("parameter", [{"limit": 0}, {"limit": 501}, {"threshold": 1.1}, {"cutoff": "x"}])
def test_parameters_out_of_range_are_refused(client: Client, parameter: Json) -> None:
    assert client.post("/match/default", query("Person", name="x"), **parameter).status == 422


@pytest.mark.parametrize(
    "name", ["x", "GmbH", "123", "\U0001f600", "a" * 300, "\u041c\u0430" * 100, "", " ", "-", "\ud800"]
)
def test_strange_names_find_nobody_and_break_nothing(client: Client, name: str) -> None:
    answer = client.post("/match/default", query("Company", name=[name]))
    if name == "\ud800":
        # Half of a pair is no text.
        assert answer.status == 400, answer
    else:
        assert answer.status == 200
        assert all(one["score"] < 1 for one in answer.json["responses"]["q"]["results"])


def test_values_of_any_type_are_no_names(client: Client) -> None:
    for value in (None, 7, True, {"a": 1}, [None, {"b": 2}, [3]], 1e300):
        assert results(client, query("Company", name=value)) == []


def test_five_hundred_queries_are_answered_by_name(client: Client) -> None:
    queries = {f"q{n}": {"schema": "Person", "properties": {"name": ["Maria Musterfrau"]}} for n in range(500)}
    answer = client.post("/match/default", {"queries": queries})
    assert answer.status == 200
    assert list(answer.json["responses"]) == list(queries)
    assert all(len(one["results"]) == 2 for one in answer.json["responses"].values())


def test_it_needs_a_key_that_may_assess(service: Service) -> None:
    sent = query("Person", name="x")
    assert service.client(None).post("/match/default", sent).status == 401
    assert service.client(service.new_key("viewer")).post("/match/default", sent).status == 403
    assert service.client(service.new_key("assessor")).post("/match/default", sent).status == 200


def test_n_queries_count_as_n(service: Service) -> None:
    client = service.client(service.new_key("assessor", tier=None, rate="1/h burst 10"))
    two = {"queries": {f"q{n}": {"schema": "Person", "properties": {}} for n in range(6)}}
    first = client.post("/match/default", two)
    assert first.status == 200
    assert ";r=4;" in first.headers["ratelimit"]
    assert client.post("/match/default", two).status == 429
