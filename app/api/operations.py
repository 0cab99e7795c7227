"""The operations of the HTTP interface: what each is sent, what it answers, and what it can be refused with.

Their permissions stand in app.api.permissions; app.api.openapi makes the OpenAPI document of both.
"""

from __future__ import annotations

from app import errors, queries, wire
from app.api.diagnostics import DEBUG_OPERATIONS, WORKER
from app.api.operation import BODY_PROBLEMS, KEY_PROBLEMS, Answer, Json, Operation
from app.api.screening import SCREENING_OPERATIONS

PROFILE_EXAMPLE: Json = {
    "business": {
        "id": "cust-0042",
        "name": "Acme Trading GmbH",
        "aliases": ["Acme"],
        "jurisdiction": "DE",
        "registration_number": "HRB 12345",
        "incorporated_on": "2009-05-01",
        "status": "active",
        "legal_form": "GmbH",
        "lei": "529900T8BM49AURSDO55",
        "vat_number": "DE136695976",
        "is_shell_bank": False,
        "industry": {"scheme": "nace", "code": "46.90"},
        "operating_countries": ["DE", "PL"],
        "address": {
            "street": "Hauptstrasse 1",
            "city": "Berlin",
            "postal_code": "10115",
            "country": "DE",
            "kind": "operating",
        },
        "website": "https://acme.example",
        "email": "info@acme.example",
        "phone": "+49301234567",
        "employees": 57,
        "delivery_channel": "face_to_face",
        "cash_intensive": False,
        "licence_status": "not_required",
    },
    "ownership": {
        "owners": [
            {
                "name": "Maria Musterfrau",
                "kind": "person",
                "country": "DE",
                "share_pct": 60.0,
                "birth_date": "1970-01-01",
                "is_pep": False,
            },
            {"name": "Beta Holding S.A.", "kind": "company", "country": "LU", "share_pct": 40.0, "lei": None},
        ],
        "directors": [{"name": "Max Muster", "country": "DE", "birth_date": "1975-03-02", "is_pep": False}],
        "layers": 1,
        "has_nominees": False,
        "has_bearer_shares": False,
    },
    "financials": {
        "currency": "EUR",
        "listed": False,
        "manufacturer": False,
        "audit_opinion": "unqualified",
        "filing_overdue_days": 0,
        "current": {
            "period_end": "2025-12-31",
            "period_months": 12,
            "total_assets": 1000,
            "current_assets": 500,
            "current_liabilities": 250,
            "total_liabilities": 600,
            "retained_earnings": 200,
            "ebit": 120,
            "ebt": 90,
            "net_income": 60,
            "revenue": 1500,
        },
        "prior": None,
    },
    "signals": {
        "adverse_media_count": 0,
        "adverse_media_severity": "none",
        "litigation_count": 0,
        "insolvency_events": 0,
        "regulatory_actions": 0,
        "director_turnover_12m": 0,
        "website_verified": True,
    },
}

MINIMAL_EXAMPLE: Json = {"business": {"name": "Acme Trading GmbH", "jurisdiction": "DE"}}


PATH_PARAMETERS: dict[tuple[str, str], Json] = {
    ("/v1/assessments", "id"): {
        "description": "the assessment's `id` (a UUIDv7)",
        "schema": {"type": "string", "format": "uuid"},
        "example": "019ab0c1-5e00-7c3a-9f1e-2b6d4c8a7e10",
    },
    ("/v1/assessments", "override_id"): {
        "description": "the override's `id` (a UUIDv7)",
        "schema": {"type": "string", "format": "uuid"},
        "example": "019ab0c2-48d0-7f11-8a52-c0d1e2f3a4b5",
    },
    ("/v1/dispositions", "id"): {
        "description": "the disposition's `id` (a UUIDv7)",
        "schema": {"type": "string", "format": "uuid"},
        "example": "019ab0c3-1c44-7d02-9b6e-4f5a6b7c8d9e",
    },
    ("/match", "dataset"): {
        "description": "a watchlist's name, or `default` for all lists in force",
        "schema": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$"},
        "example": "default",
    },
    ("/v1/models", "id"): {
        "description": "the model's `id`",
        "schema": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$"},
        "example": "kyb",
    },
    ("/v1/models", "version"): {
        "description": "the model's `version`",
        "schema": {"type": "string", "pattern": "^[0-9]{1,6}\\.[0-9]{1,6}\\.[0-9]{1,6}$"},
        "example": "1.1.0",
    },
    ("/v1/keys", "id"): {
        "description": "the key's `id`, which is the part of its text that is no secret",
        "schema": {"type": "string", "pattern": "^[0-9A-Za-z]{12}$"},
        "example": "3vXk0aB9LmQ2",
    },
}

REQUEST_HEADERS: dict[str, Json] = {
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "1 to 255 printable ASCII characters. For 24 hours the same key with the same request gives the "
        "same answer again, byte for byte, with `Idempotent-Replayed: true`, and records nothing; with another request "
        "it is refused (422). While the first request is still being recorded: 409 with Retry-After. Without effect "
        "with `dry_run`.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    },
    "If-None-Match": {
        "name": "If-None-Match",
        "in": "header",
        "required": False,
        "description": "the `ETag` of an earlier answer; 304 when it still holds",
        "schema": {"type": "string"},
    },
    "X-Request-ID": {
        "name": "X-Request-ID",
        "in": "header",
        "required": False,
        "description": "The caller's name for this request. Used when it is 1 to 128 characters of `A-Za-z0-9._-`; "
        "otherwise a new one is made.",
        "schema": {"type": "string"},
    },
}

RESPONSE_HEADERS: dict[str, Json] = {
    "X-Request-ID": {
        "description": "the request's id, also `instance` of a problem",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    "Location": {
        "description": "path of what was recorded",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Idempotent-Replayed": {
        "description": "`true` where this is the answer of an earlier request with the same Idempotency-Key",
        "required": False,
        "schema": {"type": "string", "const": "true"},
    },
    "ETag": {
        "description": "validator of this answer: strong of an assessment, weak of this description",
        "required": True,
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "the rates that hold for the key, where it has any (draft-ietf-httpapi-ratelimit-headers-10): "
        "`q` requests in `w` seconds",
        "required": False,
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": "what is left of them: `r` requests now, all of `q` again in `t` seconds",
        "required": False,
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "seconds to wait before trying again",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    **WORKER,
}

_UNCHANGED = Answer(304, "Unchanged: the caller's copy is good", None, ("ETag",))

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "post",
        "/v1/assessments",
        "assess",
        "Assessments",
        "Assess a business",
        "Scores the profile, decides, records the assessment and answers with it. Only `business.name` and "
        "`business.jurisdiction` are required; what is absent or null counts as missing, which is never safe. "
        "A 201 is sent only after the record is durable. The body holds at most 1 MiB.",
        (
            Answer(201, "The assessment, recorded", wire.Assessment, ("Location", "Idempotent-Replayed")),
            Answer(200, "The assessment of a dry run: `id` and `created_at` are null", wire.Assessment),
        ),
        query=queries.AssessQuery,
        headers=("Idempotency-Key",),
        body=wire.Profile,
        examples=(("full", PROFILE_EXAMPLE), ("minimal", MINIMAL_EXAMPLE)),
        problems=(*BODY_PROBLEMS, *KEY_PROBLEMS, errors.ProfileRefused, errors.Unavailable),
    ),
    Operation(
        "get",
        "/v1/assessments",
        "list_assessments",
        "Assessments",
        "List assessments",
        "Newest first, a page at a time: while `next_cursor` is not null, send it as `cursor` for the next page. "
        "`level` and `decision` filter by what is in force, as `effective` shows it.",
        (Answer(200, "A page of assessments, each as with `explain=top`", wire.AssessmentList),),
        query=queries.ListQuery,
        problems=(errors.Unavailable,),
    ),
    Operation(
        "post",
        "/v1/assessments/batch",
        "assess_batch",
        "Assessments",
        "Assess up to 1,000 businesses",
        "Each item is assessed for itself: its `status` is 201 (200 with `dry_run`) with an `assessment`, or 422 with "
        "a `problem`, and one wrong item does not stop the others. More than 1,000 items, or 8 MiB, are refused as a "
        "whole with 413. With an Idempotency-Key the batch is recorded as a whole or not at all.",
        (Answer(200, "One answer per item, in the order sent", wire.BatchAnswer, ("Idempotent-Replayed",)),),
        query=queries.AssessQuery,
        headers=("Idempotency-Key",),
        body=wire.Batch,
        examples=(
            ("two", {"items": [MINIMAL_EXAMPLE, {"business": {"name": "Beta Holding S.A.", "jurisdiction": "LU"}}]}),
        ),
        problems=(*BODY_PROBLEMS, *KEY_PROBLEMS, errors.BatchTooLarge, errors.BatchRefused, errors.Unavailable),
    ),
    Operation(
        "get",
        "/v1/assessments/{id}",
        "read_assessment",
        "Assessments",
        "Read an assessment",
        "The assessment as it was recorded, which never changes. `effective` shows the level and decision in force: "
        "once a person decided over it, these are that person's, and the `ETag` is another.",
        (
            Answer(200, "The assessment", wire.Assessment, ("ETag",)),
            _UNCHANGED,
        ),
        query=queries.ReadQuery,
        headers=("If-None-Match",),
        problems=(errors.NotFound, errors.Conflict, errors.Unavailable),
    ),
    Operation(
        "post",
        "/v1/assessments/{id}/replay",
        "replay_assessment",
        "Assessments",
        "Replay an assessment",
        "Scores the stored input and evidence again under the stored model version and compares field by field. "
        "What cannot be replayed any more is answered with 409.",
        (Answer(200, "Whether both are identical, and every difference", wire.Replay),),
        problems=(errors.NotFound, errors.Conflict, errors.Unavailable),
    ),
    Operation(
        "post",
        "/v1/assessments/{id}/overrides",
        "override_assessment",
        "Overrides",
        "Decide over an assessment",
        "Records a person's level, decision or both beside the assessment, whose record stays as it is; what is not "
        "given stays as it is in force. A legal floor (in the assessment, an override with `legal`) cannot be "
        "undercut: 409. What was declined, by the record or by an override in force, nobody approves alone: that is "
        "recorded as `pending` (202) and takes effect when another key approves it.",
        (
            Answer(201, "The override, in force", wire.Override, ("Location",)),
            Answer(202, "The override, pending until another key approves it", wire.Override, ("Location",)),
        ),
        body=wire.OverrideRequest,
        examples=(
            ("decision", {"decision": "decline", "reason": "The registered office was visited and does not exist."}),
            ("both", {"level": "low", "decision": "approve", "reason": "The match was a namesake of another age."}),
        ),
        problems=(*BODY_PROBLEMS, errors.BodyRefused, errors.NotFound, errors.Conflict),
    ),
    Operation(
        "get",
        "/v1/assessments/{id}/overrides",
        "list_overrides",
        "Overrides",
        "List the overrides of an assessment",
        "All of them, oldest first; at most 200.",
        (Answer(200, "The overrides", wire.OverrideList),),
        problems=(errors.NotFound,),
    ),
    Operation(
        "get",
        "/v1/assessments/{id}/overrides/{override_id}",
        "read_override",
        "Overrides",
        "Read an override",
        "As it is now: pending, or in effect since.",
        (Answer(200, "The override", wire.Override),),
        problems=(errors.NotFound,),
    ),
    Operation(
        "post",
        "/v1/assessments/{id}/overrides/{override_id}/approve",
        "approve_override",
        "Overrides",
        "Approve a pending override",
        "It takes effect. The key must be another person's than the one that asked for it, and than each that lowered "
        "the decision since it was last decline: neither its successor, nor made or replaced with it over any number "
        "of steps, nor the reverse. And no other override may have taken effect in between. Otherwise: 409.",
        (Answer(200, "The override, in force", wire.Override),),
        problems=(errors.NotFound, errors.Conflict),
    ),
    *SCREENING_OPERATIONS,
    Operation(
        "get",
        "/v1/models",
        "list_models",
        "Models",
        "List models",
        "The models known, and which of them is active.",
        (Answer(200, "The models", wire.ModelList),),
        problems=(errors.Unavailable,),
    ),
    Operation(
        "get",
        "/v1/models/{id}/{version}",
        "read_model",
        "Models",
        "Read a model",
        "The full definition of one model version: features, characteristics, points, tables, overrides, bands.",
        (Answer(200, "The model", wire.ModelDetail),),
        problems=(errors.NotFound, errors.Unavailable),
    ),
    Operation(
        "get",
        "/v1/keys",
        "list_keys",
        "Keys",
        "List keys",
        "All keys of the caller's tenant, newest first; those that expired or were revoked too. Never their texts.",
        (Answer(200, "The keys", wire.KeyList),),
    ),
    Operation(
        "post",
        "/v1/keys",
        "create_key",
        "Keys",
        "Make a key",
        "For the caller's tenant. The answer holds the key's text, `key`, which is kept nowhere and shown this once. "
        "Nobody can make a key that may do more than their own, or that has a higher rate, a later end or wider "
        "networks (403). Without `tier` and `rate` it has the settings' default tier.",
        (Answer(201, "The key, with its text", wire.NewKey, ("Location",)),),
        body=wire.KeyRequest,
        examples=(
            (
                "narrow",
                {
                    "name": "onboarding",
                    "role": "assessor",
                    "scopes": ["assess"],
                    "networks": ["10.0.0.0/8", "2001:db8::/32"],
                    "rate": "100/s burst 200",
                    "expires_at": "2099-12-31T23:59:59Z",
                },
            ),
            ("minimal", {"name": "onboarding", "role": "assessor"}),
        ),
        problems=(*BODY_PROBLEMS, errors.BodyRefused, errors.KeyWider),
    ),
    Operation(
        "get",
        "/v1/keys/{id}",
        "read_key",
        "Keys",
        "Read a key",
        "As it is now; one that expired or was revoked too. Never its text.",
        (Answer(200, "The key", wire.Key),),
        problems=(errors.NotFound,),
    ),
    Operation(
        "delete",
        "/v1/keys/{id}",
        "revoke_key",
        "Keys",
        "Revoke a key",
        "It stops working everywhere within 5 seconds. One that was revoked before stays as it was. The tenant's last "
        "working key that may change keys cannot be revoked here (409).",
        (Answer(200, "The key as it is now", wire.Key),),
        problems=(errors.NotFound, errors.Conflict),
    ),
    Operation(
        "post",
        "/v1/keys/{id}/rotate",
        "rotate_key",
        "Keys",
        "Replace a key",
        "Makes a successor with the same rights, the same rate and the same end, and ends the key after `overlap_s`, "
        "or when it would have ended anyway. A key that does not work any more cannot be replaced (409), nor one that "
        "reaches further than the caller's own (403).",
        (Answer(201, "The successor, with its text", wire.NewKey, ("Location",)),),
        query=queries.RotateQuery,
        problems=(errors.NotFound, errors.Conflict, errors.KeyWider),
    ),
    Operation(
        "get",
        "/v1/audit",
        "list_audit_entries",
        "Audit",
        "Read the audit trail",
        "The entries of the caller's tenant, newest first, a page at a time: while `next_cursor` is not null, send it "
        "as `cursor` for the next page. Each entry's `hash` covers the one before it in its segment. Reading is not "
        "entered itself, or whoever follows the trail would only read of that.",
        (Answer(200, "A page of entries", wire.AuditList),),
        query=queries.AuditQuery,
    ),
    Operation(
        "get",
        "/v1/audit/checkpoints",
        "list_audit_checkpoints",
        "Audit",
        "Read the audit trail's checkpoints",
        "Signed marks of how far every segment has come, newest first, a page at a time. Whoever keeps one of them "
        "elsewhere can later prove that nothing before it was cut off or rewritten: `kyb audit verify --checkpoint`.",
        (Answer(200, "A page of checkpoints", wire.CheckpointList),),
        query=queries.CheckpointQuery,
    ),
    *DEBUG_OPERATIONS,
    Operation(
        "get",
        "/health",
        "health",
        "Service",
        "Health in a word",
        "`ok`, or `degraded` where something is to be seen to and requests are answered nevertheless.",
        (Answer(200, "The word", wire.Health),),
    ),
    Operation(
        "get",
        "/health/live",
        "liveness",
        "Service",
        "Whether the process lives",
        "Answered by every process that runs its event loop. One that does not answer should be replaced.",
        (Answer(200, "It lives", wire.Liveness),),
    ),
    Operation(
        "get",
        "/health/ready",
        "readiness",
        "Service",
        "Whether requests should come here",
        "Started, with model, watchlists and schema, and not draining. An outage of what all pods share is no reason "
        "to take them out of rotation: `/health/detailed` tells of it.",
        (Answer(200, "They should", wire.Readiness), Answer(503, "They should not", wire.Readiness)),
    ),
    Operation(
        "get",
        "/health/detailed",
        "detailed_health",
        "Service",
        "Health of every component",
        "Status, latency, breaker, pools, queues, caches and lists, of the process that answers. Without a key from "
        "this machine and from MONITORING_NETWORKS alone.",
        (Answer(200, "The components", wire.DetailedHealth),),
    ),
    Operation(
        "get",
        "/metrics",
        "metrics",
        "Service",
        "Metrics for Prometheus",
        "Of all processes of the pod together, as text. Without a key from this machine and from MONITORING_NETWORKS "
        "alone.",
        (Answer(200, "The metrics", {"type": "string"}, media_type="text/plain"),),
    ),
    Operation(
        "get",
        "/openapi.json",
        "openapi",
        "Service",
        "This description",
        "The OpenAPI 3.1 document.",
        (
            Answer(200, "The document", {"type": "object", "required": ["openapi", "info", "paths"]}, ("ETag",)),
            _UNCHANGED,
        ),
        headers=("If-None-Match",),
    ),
    Operation(
        "get",
        "/docs",
        "docs",
        "Service",
        "Reference page",
        "The same description as a page to read.",
        (Answer(200, "The page", {"type": "string"}, ("ETag",), "text/html"), _UNCHANGED),
        headers=("If-None-Match",),
    ),
)

TAGS: dict[str, str] = {
    "Assessments": "Risk assessments of businesses: made, recorded, read again, replayed.",
    "Overrides": "What people decide over assessments, beside the record.",
    "Screening": "Names against watchlists: in assessments, alone, and what people set aside.",
    "Models": "The scorecards that assessments are made with.",
    "Keys": "Who may call, and what for.",
    "Audit": "Who did what, in a hash-chained trail of the tenant's own.",
    "Debug": "What a running process is doing.",
    "Service": "The service itself.",
}
