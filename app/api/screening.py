"""The operations of screening: what people set aside, the lists in force, and matching alone."""

from __future__ import annotations

from app import errors, queries, wire, yente
from app.api.operation import BODY_PROBLEMS, Answer, Json, Operation

DISPOSITION_EXAMPLE: Json = {
    "assessment_id": "019ab0c1-5e00-7c3a-9f1e-2b6d4c8a7e10",
    "list": "demo",
    "entity_id": "demo-001",
    "reason": "Another company: founded in 1998 in Denmark, says the register.",
}
MATCH_EXAMPLE: Json = {
    "queries": {
        "q1": {"schema": "Company", "properties": {"name": ["Acme Trading GmbH"], "jurisdiction": ["de"]}},
        "q2": {"schema": "Person", "properties": {"name": ["Maria Musterfrau"], "birthDate": ["1970-01-01"]}},
    }
}

SCREENING_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "post",
        "/v1/dispositions",
        "set_hit_aside",
        "Screening",
        "Set a potential hit aside",
        "A person's finding that a potential hit of a recorded assessment is a namesake's. In later assessments of the "
        "business (the same `business.id`, or without one the same jurisdiction and registration number) the entry is "
        "still shown, with `disposition_id`, and counts for nothing, until the entry changes. The recorded assessment "
        "stays as it is. A confirmed hit cannot be set aside (409).",
        (Answer(201, "The disposition", wire.Disposition, ("Location",)),),
        body=wire.DispositionRequest,
        examples=(("namesake", DISPOSITION_EXAMPLE),),
        problems=(*BODY_PROBLEMS, errors.NotFound, errors.Conflict, errors.BodyRefused),
    ),
    Operation(
        "get",
        "/v1/dispositions",
        "list_dispositions",
        "Screening",
        "List what was set aside",
        "Newest first, those that ended too, a page at a time: while `next_cursor` is not null, send it as `cursor`.",
        (Answer(200, "A page of dispositions", wire.DispositionList),),
        query=queries.DispositionQuery,
    ),
    Operation(
        "get",
        "/v1/dispositions/{id}",
        "read_disposition",
        "Screening",
        "Read a disposition",
        "One of the tenant's.",
        (Answer(200, "The disposition", wire.Disposition),),
        problems=(errors.NotFound,),
    ),
    Operation(
        "delete",
        "/v1/dispositions/{id}",
        "end_disposition",
        "Screening",
        "Take a disposition back",
        "From now on the entry counts again. One that ended before stays as it was.",
        (Answer(200, "The disposition as it is now", wire.Disposition),),
        problems=(errors.NotFound,),
    ),
    Operation(
        "get",
        "/v1/watchlists",
        "list_watchlists",
        "Screening",
        "List the watchlists in force",
        "With their versions, and whether everything that the model requires is loaded and fresh. Without that no "
        "screening is `clear`. Lists are managed with `kyb watchlist`.",
        (Answer(200, "The lists", wire.WatchlistInfos),),
    ),
    Operation(
        "post",
        "/match/{dataset}",
        "match",
        "Screening",
        "Screen names alone",
        "Nothing is assessed or recorded. The request and the answer have the shape of yente's `/match`, so that its "
        "clients only change their address: up to 500 queries, each with a FollowTheMoney `schema` and `properties`. "
        "Here alone unknown fields and parameters are ignored. `default` is every list in force, of every kind. n "
        "queries count as n requests.",
        (Answer(200, "For each query the entities that resemble it, best first", yente.MatchAnswer),),
        query=queries.MatchQuery,
        body=yente.MatchRequest,
        examples=(("two", MATCH_EXAMPLE),),
        problems=(*BODY_PROBLEMS, errors.NotFound, errors.BodyRefused, errors.BatchTooLarge),
    ),
)
