DELETE FROM assessments a WHERE a.tenant_id = $1 AND a.id = ANY ($2::uuid[]) AND a.id >= $3 AND a.id <= $4
AND EXISTS (SELECT 1 FROM retention WHERE tenant_id = $1 AND days = $5)
AND NOT EXISTS (
    SELECT 1 FROM relationships r WHERE r.tenant_id = $1 AND r.business_id = a.business_id
    AND (r.ended_on IS NULL OR r.ended_on >= $6))
RETURNING a.id;

DELETE FROM idempotency WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency WHERE created_ms < $1 ORDER BY created_ms LIMIT $2 FOR UPDATE SKIP LOCKED));

DELETE FROM overrides WHERE tenant_id = $1 AND assessment_id = ANY ($2::uuid[]);

DELETE FROM overrides WHERE tenant_id = ANY ($1) AND assessment_id >= $2 AND assessment_id < $3;

DELETE FROM relationships WHERE tenant_id = $1 AND business_id = $2 RETURNING 1;

DELETE FROM retention WHERE tenant_id = $1;

INSERT INTO api_keys (id, tenant_id, name, role, scopes, digest, networks, tier, rate, created_ms, created_by, expires_ms, revoked_ms, last_used_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (id) DO NOTHING RETURNING 1;

INSERT INTO audit_entries (tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash) SELECT * FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bytea[], $8::bytea[], $9::bytea[], $10::bytea[]);

INSERT INTO audit_entries (tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash) VALUES ($1::text, $2::uuid, $3::bigint, $4::bigint, $5::text, $6::text, $7::bytea, $8::bytea, $9::bytea, $10::bytea);

INSERT INTO erasures (tenant_id, business_sha256, erased_ms, assessments, reason) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING RETURNING 1;

INSERT INTO models (sha256, model_id, version, definition) VALUES ($1, $2, $3, $4) ON CONFLICT (sha256) DO NOTHING;

INSERT INTO overrides (tenant_id, assessment_id, id, level, decision, reason, actor, state, approver, approved_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (tenant_id, assessment_id, id) DO NOTHING RETURNING 1;

INSERT INTO pulse (place, at) VALUES ($1, now());

INSERT INTO pulse (place, at) VALUES ($1, now()) ON CONFLICT (place) DO UPDATE SET at = EXCLUDED.at;

INSERT INTO pulse (place, at) VALUES (1, now());

INSERT INTO relationships (tenant_id, business_id, ended_on) VALUES ($1, $2, $3)
ON CONFLICT (tenant_id, business_id) DO UPDATE SET ended_on = EXCLUDED.ended_on;

INSERT INTO retention (tenant_id, days) VALUES ($1, $2) ON CONFLICT (tenant_id) DO UPDATE SET days = EXCLUDED.days;

SELECT $1::text IS NULL;

SELECT (SELECT id FROM assessments WHERE tenant_id = $1 ORDER BY id LIMIT 1),
       (SELECT id FROM assessments WHERE tenant_id = $1 ORDER BY id DESC LIMIT 1);

SELECT * FROM ((SELECT tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256, override_id, original_level, original_decision, leaf FROM assessments a WHERE tenant_id = $1 AND level = $5 AND decision = $6 AND id >= $2 AND id < $3 ORDER BY id DESC LIMIT $4)) a ORDER BY id DESC LIMIT $4;

SELECT * FROM ((SELECT tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256, override_id, original_level, original_decision, leaf FROM assessments a WHERE tenant_id = $1 AND level = $5 AND decision = 0 AND id >= $2 AND id < $3 ORDER BY id DESC LIMIT $4) UNION ALL (SELECT tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256, override_id, original_level, original_decision, leaf FROM assessments a WHERE tenant_id = $1 AND level = $5 AND decision = 1 AND id >= $2 AND id < $3 ORDER BY id DESC LIMIT $4) UNION ALL (SELECT tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256, override_id, original_level, original_decision, leaf FROM assessments a WHERE tenant_id = $1 AND level = $5 AND decision = 2 AND id >= $2 AND id < $3 ORDER BY id DESC LIMIT $4)) a ORDER BY id DESC LIMIT $4;

SELECT * FROM ((SELECT tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256, override_id, original_level, original_decision, leaf FROM assessments a WHERE tenant_id = $1 AND level = 0 AND decision = $5 AND id >= $2 AND id < $3 ORDER BY id DESC LIMIT $4) UNION ALL (SELECT tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256, override_id, original_level, original_decision, leaf FROM assessments a WHERE tenant_id = $1 AND level = 1 AND decision = $5 AND id >= $2 AND id < $3 ORDER BY id DESC LIMIT $4) UNION ALL (SELECT tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256, override_id, original_level, original_decision, leaf FROM assessments a WHERE tenant_id = $1 AND level = 2 AND decision = $5 AND id >= $2 AND id < $3 ORDER BY id DESC LIMIT $4) UNION ALL (SELECT tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256, override_id, original_level, original_decision, leaf FROM assessments a WHERE tenant_id = $1 AND level = 3 AND decision = $5 AND id >= $2 AND id < $3 ORDER BY id DESC LIMIT $4)) a ORDER BY id DESC LIMIT $4;

SELECT 1;

SELECT 1 FROM assessments WHERE tenant_id = $1 AND id = $2 AND override_id IS NOT DISTINCT FROM $3 FOR UPDATE;

SELECT 1 FROM audit_entries WHERE tenant_id = $1 AND segment = $2 AND number = $3 AND hash = $4;

SELECT EXISTS (SELECT 1 FROM api_keys WHERE revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $1));

SELECT EXISTS (SELECT 1 FROM assessments_other WHERE id >= $1 AND id < $2);

SELECT NOT pg_is_in_recovery() AND count(*) = 2 AND bool_and(pg_has_role(current_user, relowner, 'USAGE'))
FROM pg_class WHERE oid IN ('assessments'::regclass, to_regclass($1));

SELECT a.* FROM unnest($1::text[], $2::uuid[]) AS q (tenant_id, id)
CROSS JOIN LATERAL (
    SELECT tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256, override_id, original_level, original_decision, leaf FROM assessments a
    WHERE a.tenant_id = q.tenant_id AND a.id = q.id AND a.id BETWEEN $3 AND $4 LIMIT 1
) a;

SELECT a.id, (
    SELECT true FROM relationships r WHERE r.tenant_id = $1 AND r.business_id = a.business_id
    AND (r.ended_on IS NULL OR r.ended_on >= $5) LIMIT 1
) FROM (
    SELECT id, business_id FROM assessments WHERE tenant_id = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT $4
) a ORDER BY a.id;

SELECT assessments FROM erasures WHERE tenant_id = $1 AND business_sha256 = $2 AND erased_ms = $3;

SELECT at_ms, segment, number FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) AND act <> 'assessment.recorded' ORDER BY at_ms DESC, segment DESC, number DESC LIMIT 1 OFFSET $8;

SELECT at_ms, segment, number FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) ORDER BY at_ms DESC, segment DESC, number DESC LIMIT 1 OFFSET $8;

SELECT at_ms, segment, number FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) ORDER BY at_ms, segment, number LIMIT 1 OFFSET $8;

SELECT business_sha256, erased_ms, assessments, reason FROM erasures
WHERE tenant_id = $1 ORDER BY erased_ms, business_sha256;

SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'assessments'::regclass;

SELECT count(*), sum(hashtextextended(r.tenant_id || ' ' || r.business_id, 0))
FROM unnest($1::text[], $2::date[]) AS t (tenant_id, kept_from) JOIN relationships r ON r.tenant_id = t.tenant_id
WHERE r.ended_on IS NULL OR r.ended_on >= t.kept_from;

SELECT definition FROM models WHERE sha256 = $1;

SELECT i.* FROM unnest($1::text[], $2::text[]) AS q (tenant_id, key)
CROSS JOIN LATERAL (
    SELECT tenant_id, key, fingerprint, status, ids, explain, renderer, answer_sha256, request_id, as_of, created_ms FROM idempotency i WHERE i.tenant_id = q.tenant_id AND i.key = q.key LIMIT 1
) i;

SELECT id FROM assessments WHERE tenant_id = $1 AND id >= $2 ORDER BY id LIMIT 1;

SELECT id, tenant_id, name, role, scopes, digest, networks, tier, rate, created_ms, created_by, expires_ms, revoked_ms, last_used_ms FROM api_keys  ORDER BY created_ms DESC, id DESC;

SELECT id, tenant_id, name, role, scopes, digest, networks, tier, rate, created_ms, created_by, expires_ms, revoked_ms, last_used_ms FROM api_keys WHERE id = $1;

SELECT id, tenant_id, name, role, scopes, digest, networks, tier, rate, created_ms, created_by, expires_ms, revoked_ms, last_used_ms FROM api_keys WHERE tenant_id = $1 AND id = $2;

SELECT id, tenant_id, name, role, scopes, digest, networks, tier, rate, created_ms, created_by, expires_ms, revoked_ms, last_used_ms FROM api_keys WHERE tenant_id = $1 ORDER BY created_ms DESC, id DESC;

SELECT max(erased_ms) FROM erasures WHERE tenant_id = $1 AND business_sha256 = $2 AND erased_ms >= $3;

SELECT number FROM audit_heads WHERE tenant_id = $1 AND segment = $2;

SELECT pg_advisory_xact_lock(7043426);

SELECT sha256, model_id, version FROM models ORDER BY model_id, version, sha256;

SELECT t.tenant_id, s.segment, l.number, l.hash FROM (WITH RECURSIVE t (tenant_id) AS (
    (SELECT o.tenant_id FROM audit_entries o ORDER BY o.tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT o.tenant_id FROM audit_entries o WHERE o.tenant_id > t.tenant_id ORDER BY o.tenant_id LIMIT 1)
    FROM t WHERE t.tenant_id IS NOT NULL
)
SELECT t.tenant_id FROM t WHERE t.tenant_id IS NOT NULL) t
CROSS JOIN LATERAL (WITH RECURSIVE s (segment) AS (
    (SELECT e.segment FROM audit_entries e WHERE e.tenant_id = t.tenant_id AND e.segment >= $1 ORDER BY e.segment LIMIT 1)
    UNION ALL
    SELECT (SELECT e.segment FROM audit_entries e WHERE e.tenant_id = t.tenant_id AND e.segment > s.segment
            ORDER BY e.segment LIMIT 1) FROM s WHERE s.segment IS NOT NULL
)
SELECT s.segment FROM s WHERE s.segment IS NOT NULL) s
CROSS JOIN LATERAL (
    SELECT e.number, e.hash FROM audit_entries e WHERE e.tenant_id = t.tenant_id AND e.segment = s.segment
    ORDER BY e.number DESC LIMIT 1
) l
WHERE l.number > coalesce((
    SELECT h.number FROM audit_heads h WHERE h.tenant_id = t.tenant_id AND h.segment = s.segment), 0);

SELECT tenant_id, assessment_id, id, level, decision, reason, actor, state, approver, approved_ms FROM overrides WHERE tenant_id = $1 AND assessment_id = $2 ORDER BY id;

SELECT tenant_id, days FROM retention ORDER BY tenant_id;

SELECT tenant_id, days FROM retention WHERE tenant_id = ANY ($1);

SELECT tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256, override_id, original_level, original_decision, leaf FROM assessments a WHERE tenant_id = $1 AND id >= $2 AND id < $3 ORDER BY id DESC LIMIT $4;

SELECT tenant_id, number, at_ms, entries, heads, previous, hash, mac FROM audit_checkpoints WHERE tenant_id = $1 AND number = $2;

SELECT tenant_id, number, at_ms, entries, heads, previous, hash, mac FROM audit_checkpoints WHERE tenant_id = $1 AND number > $2 ORDER BY number LIMIT $3;

SELECT tenant_id, number, at_ms, entries, heads, previous, hash, mac FROM audit_checkpoints WHERE tenant_id = $1 ORDER BY number DESC LIMIT 1;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) AND (actor = $9 OR (actor = '' AND act = 'assessment.recorded' AND position($10 in detail) > 0)) ORDER BY at_ms DESC, segment DESC, number DESC LIMIT $8;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) AND act <> 'assessment.recorded' AND (actor = $9 OR (actor = '' AND act = 'assessment.recorded' AND position($10 in detail) > 0)) AND position($11 in subjects) > 0 ORDER BY at_ms DESC, segment DESC, number DESC LIMIT $8;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) AND act <> 'assessment.recorded' AND act = $9 AND (actor = $10 OR (actor = '' AND act = 'assessment.recorded' AND position($11 in detail) > 0)) AND position($12 in subjects) > 0 ORDER BY at_ms DESC, segment DESC, number DESC LIMIT $8;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) AND act <> 'assessment.recorded' AND act = $9 AND (actor = $10 OR (actor = '' AND act = 'assessment.recorded' AND position($11 in detail) > 0)) ORDER BY at_ms DESC, segment DESC, number DESC LIMIT $8;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) AND act <> 'assessment.recorded' AND act = $9 AND position($10 in subjects) > 0 ORDER BY at_ms DESC, segment DESC, number DESC LIMIT $8;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) AND act <> 'assessment.recorded' AND act = $9 ORDER BY at_ms DESC, segment DESC, number DESC LIMIT $8;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) AND act <> 'assessment.recorded' AND position($9 in subjects) > 0 ORDER BY at_ms DESC, segment DESC, number DESC LIMIT $8;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) AND act = $9 AND (actor = $10 OR (actor = '' AND act = 'assessment.recorded' AND position($11 in detail) > 0)) AND position($12 in subjects) > 0 ORDER BY at_ms DESC, segment DESC, number DESC LIMIT $8;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) AND act = $9 AND (actor = $10 OR (actor = '' AND act = 'assessment.recorded' AND position($11 in detail) > 0)) AND position($12 in subjects) > 0 ORDER BY at_ms, segment, number LIMIT $8;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) AND act = $9 AND (actor = $10 OR (actor = '' AND act = 'assessment.recorded' AND position($11 in detail) > 0)) ORDER BY at_ms DESC, segment DESC, number DESC LIMIT $8;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) AND act = $9 AND position($10 in subjects) > 0 ORDER BY at_ms DESC, segment DESC, number DESC LIMIT $8;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) AND act = $9 AND position($10 in subjects) > 0 ORDER BY at_ms, segment, number LIMIT $8;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) AND act = $9 ORDER BY at_ms DESC, segment DESC, number DESC LIMIT $8;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4) AND (at_ms, segment, number) < ($5, $6, $7) ORDER BY at_ms DESC, segment DESC, number DESC LIMIT $8;

SELECT tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash FROM audit_entries WHERE tenant_id = $1 AND segment = $2 AND number > $3 ORDER BY number LIMIT $4;

SELECT to_regclass('alembic_version') IS NULL;

SELECT version_num FROM alembic_version;

UPDATE api_keys SET expires_ms = least(expires_ms, $3)
WHERE tenant_id = $1 AND id = $2 AND revoked_ms IS NULL RETURNING 1;

UPDATE api_keys SET revoked_ms = $3 WHERE tenant_id = $1 AND id = $2 AND revoked_ms IS NULL RETURNING id, tenant_id, name, role, scopes, digest, networks, tier, rate, created_ms, created_by, expires_ms, revoked_ms, last_used_ms;

UPDATE assessments SET override_id = $3, level = $4, decision = $5,
    original_level = coalesce(original_level, level), original_decision = coalesce(original_decision, decision)
WHERE tenant_id = $1 AND id = $2;

UPDATE assessments a SET business_id = NULL, input = NULL, input_sha256 = coalesce(sha256(a.input), a.input_sha256),
    record = r.record,
    leaf = coalesce(a.leaf, sha256(
        '\x00'::bytea || uuid_send(a.id) || a.model_sha256
        || substr(int2send(coalesce(a.original_level, a.level)), 2)
        || substr(int2send(coalesce(a.original_decision, a.decision)), 2)
        || int4send(a.score) || int4send(length(coalesce(a.input, ''))) || int4send(length(a.record))
        || coalesce(a.input, '') || a.record))
FROM unnest($3::uuid[], $4::bytea[]) AS r (id, record)
WHERE a.tenant_id = $1 AND a.id = ANY ($3::uuid[]) AND a.id >= $5 AND a.id <= $6 AND a.id = r.id AND a.business_id = $2
RETURNING a.id;

UPDATE erasures SET assessments = assessments + $4 WHERE tenant_id = $1 AND business_sha256 = $2 AND erased_ms = $3;

UPDATE overrides SET reason = NULL WHERE tenant_id = $1 AND assessment_id = ANY ($2::uuid[]);

UPDATE overrides SET state = $4, approver = $5, approved_ms = $6
WHERE tenant_id = $1 AND assessment_id = $2 AND id = $3 AND state = 'pending' RETURNING 1;

WITH RECURSIVE s (segment) AS (
    (SELECT e.segment FROM audit_entries e WHERE e.tenant_id = $1 AND e.segment >= $2 ORDER BY e.segment LIMIT 1)
    UNION ALL
    SELECT (SELECT e.segment FROM audit_entries e WHERE e.tenant_id = $1 AND e.segment > s.segment
            ORDER BY e.segment LIMIT 1) FROM s WHERE s.segment IS NOT NULL
)
SELECT s.segment FROM s WHERE s.segment IS NOT NULL;

WITH RECURSIVE s (span) AS (
    (SELECT span FROM assessments WHERE tenant_id = $1 AND id >= $3 AND id < $4 AND business_id IS NOT NULL
     AND span BETWEEN $5 AND $6 ORDER BY span LIMIT 1)
    UNION ALL
    SELECT (SELECT a.span FROM assessments a WHERE a.tenant_id = $1 AND a.id >= $3 AND a.id < $4
            AND a.business_id IS NOT NULL AND a.span > s.span AND a.span <= $6 ORDER BY a.span LIMIT 1)
    FROM s WHERE s.span IS NOT NULL
)
SELECT f.id, f.record FROM s CROSS JOIN LATERAL (
    SELECT a.id, a.record FROM assessments a
    WHERE a.tenant_id = $1 AND a.span = s.span AND a.business_id = $2 AND a.id >= $3 AND a.id < $4
    ORDER BY a.id LIMIT $7
) f WHERE s.span IS NOT NULL LIMIT $7;

WITH RECURSIVE s (span) AS (
    SELECT (SELECT span FROM assessments WHERE tenant_id = $1 AND id >= $8 AND id < $9 AND business_id IS NOT NULL
            AND span BETWEEN $6 AND $7 ORDER BY span DESC LIMIT 1)
    UNION ALL
    SELECT (SELECT a.span FROM assessments a WHERE tenant_id = $1 AND id >= $8 AND id < $9 AND business_id IS NOT NULL
            AND a.span < s.span AND a.span >= $6 ORDER BY a.span DESC LIMIT 1) FROM s WHERE s.span IS NOT NULL
)
SELECT p.* FROM s CROSS JOIN LATERAL (
    SELECT tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256, override_id, original_level, original_decision, leaf FROM assessments a WHERE tenant_id = $1 AND a.span = s.span AND business_id = $5 AND id >= $2 AND id < $3
     
    ORDER BY id DESC LIMIT $4
) p WHERE s.span IS NOT NULL ORDER BY p.id DESC LIMIT $4;

WITH RECURSIVE s (span) AS (
    SELECT (SELECT span FROM assessments WHERE tenant_id = $1 AND id >= $8 AND id < $9 AND business_id IS NOT NULL
            AND span BETWEEN $6 AND $7 ORDER BY span DESC LIMIT 1)
    UNION ALL
    SELECT (SELECT a.span FROM assessments a WHERE tenant_id = $1 AND id >= $8 AND id < $9 AND business_id IS NOT NULL
            AND a.span < s.span AND a.span >= $6 ORDER BY a.span DESC LIMIT 1) FROM s WHERE s.span IS NOT NULL
)
SELECT p.* FROM s CROSS JOIN LATERAL (
    SELECT tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256, override_id, original_level, original_decision, leaf FROM assessments a WHERE tenant_id = $1 AND a.span = s.span AND business_id = $5 AND id >= $2 AND id < $3
     AND decision = $10
    ORDER BY id DESC LIMIT $4
) p WHERE s.span IS NOT NULL ORDER BY p.id DESC LIMIT $4;

WITH RECURSIVE s (span) AS (
    SELECT (SELECT span FROM assessments WHERE tenant_id = $1 AND id >= $8 AND id < $9 AND business_id IS NOT NULL
            AND span BETWEEN $6 AND $7 ORDER BY span DESC LIMIT 1)
    UNION ALL
    SELECT (SELECT a.span FROM assessments a WHERE tenant_id = $1 AND id >= $8 AND id < $9 AND business_id IS NOT NULL
            AND a.span < s.span AND a.span >= $6 ORDER BY a.span DESC LIMIT 1) FROM s WHERE s.span IS NOT NULL
)
SELECT p.* FROM s CROSS JOIN LATERAL (
    SELECT tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256, override_id, original_level, original_decision, leaf FROM assessments a WHERE tenant_id = $1 AND a.span = s.span AND business_id = $5 AND id >= $2 AND id < $3
    AND level = $10 
    ORDER BY id DESC LIMIT $4
) p WHERE s.span IS NOT NULL ORDER BY p.id DESC LIMIT $4;

WITH RECURSIVE s (span) AS (
    SELECT (SELECT span FROM assessments WHERE tenant_id = $1 AND id >= $8 AND id < $9 AND business_id IS NOT NULL
            AND span BETWEEN $6 AND $7 ORDER BY span DESC LIMIT 1)
    UNION ALL
    SELECT (SELECT a.span FROM assessments a WHERE tenant_id = $1 AND id >= $8 AND id < $9 AND business_id IS NOT NULL
            AND a.span < s.span AND a.span >= $6 ORDER BY a.span DESC LIMIT 1) FROM s WHERE s.span IS NOT NULL
)
SELECT p.* FROM s CROSS JOIN LATERAL (
    SELECT tenant_id, id, business_id, level, decision, score, model_sha256, input, record, input_sha256, override_id, original_level, original_decision, leaf FROM assessments a WHERE tenant_id = $1 AND a.span = s.span AND business_id = $5 AND id >= $2 AND id < $3
    AND level = $10 AND decision = $11
    ORDER BY id DESC LIMIT $4
) p WHERE s.span IS NOT NULL ORDER BY p.id DESC LIMIT $4;

WITH RECURSIVE t (tenant_id) AS (
    (SELECT o.tenant_id FROM audit_checkpoints o ORDER BY o.tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT o.tenant_id FROM audit_checkpoints o WHERE o.tenant_id > t.tenant_id ORDER BY o.tenant_id LIMIT 1)
    FROM t WHERE t.tenant_id IS NOT NULL
)
SELECT t.tenant_id FROM t WHERE t.tenant_id IS NOT NULL;

WITH RECURSIVE t (tenant_id) AS (
    (SELECT o.tenant_id FROM audit_entries o ORDER BY o.tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT o.tenant_id FROM audit_entries o WHERE o.tenant_id > t.tenant_id ORDER BY o.tenant_id LIMIT 1)
    FROM t WHERE t.tenant_id IS NOT NULL
)
SELECT t.tenant_id FROM t WHERE t.tenant_id IS NOT NULL;

WITH RECURSIVE t (tenant_id) AS (
    (SELECT tenant_id FROM assessments WHERE id >= $1 AND id < $2 ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT a.tenant_id FROM assessments a WHERE a.tenant_id > t.tenant_id AND a.id >= $1 AND a.id < $2
            ORDER BY a.tenant_id LIMIT 1) FROM t WHERE t.tenant_id IS NOT NULL
)
SELECT tenant_id FROM t WHERE tenant_id IS NOT NULL;

WITH added AS (INSERT INTO assessments (tenant_id, id, business_id, span, level, decision, score, model_sha256, input, record) SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::integer[], $5::smallint[], $6::smallint[], $7::smallint[], $8::bytea[], $9::bytea[], $10::bytea[])) INSERT INTO audit_entries (tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash) SELECT * FROM unnest($11::text[], $12::uuid[], $13::bigint[], $14::bigint[], $15::text[], $16::text[], $17::bytea[], $18::bytea[], $19::bytea[], $20::bytea[]);

WITH added AS (INSERT INTO assessments (tenant_id, id, business_id, span, level, decision, score, model_sha256, input, record) SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::integer[], $5::smallint[], $6::smallint[], $7::smallint[], $8::bytea[], $9::bytea[], $10::bytea[])) INSERT INTO audit_entries (tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash) VALUES ($11::text, $12::uuid, $13::bigint, $14::bigint, $15::text, $16::text, $17::bytea, $18::bytea, $19::bytea, $20::bytea);

WITH held AS (
    INSERT INTO idempotency AS i (tenant_id, key, fingerprint, status, ids, explain, renderer, answer_sha256, request_id, as_of, created_ms)
    SELECT * FROM unnest($21::text[], $22::text[], $23::bytea[], $24::smallint[], $25::bytea[], $26::smallint[], $27::smallint[], $28::bytea[], $29::text[], $30::integer[], $31::bigint[]) ORDER BY 1, 2
    ON CONFLICT (tenant_id, key) DO UPDATE SET
        (tenant_id, key, fingerprint, status, ids, explain, renderer, answer_sha256, request_id, as_of, created_ms) = ROW (EXCLUDED.tenant_id, EXCLUDED.key, EXCLUDED.fingerprint, EXCLUDED.status, EXCLUDED.ids, EXCLUDED.explain, EXCLUDED.renderer, EXCLUDED.answer_sha256, EXCLUDED.request_id, EXCLUDED.as_of, EXCLUDED.created_ms)
        WHERE i.created_ms < EXCLUDED.created_ms - $32::bigint
    RETURNING 1
), added AS (INSERT INTO assessments (tenant_id, id, business_id, span, level, decision, score, model_sha256, input, record) SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::integer[], $5::smallint[], $6::smallint[], $7::smallint[], $8::bytea[], $9::bytea[], $10::bytea[])), entered AS (INSERT INTO audit_entries (tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash) SELECT * FROM unnest($11::text[], $12::uuid[], $13::bigint[], $14::bigint[], $15::text[], $16::text[], $17::bytea[], $18::bytea[], $19::bytea[], $20::bytea[]))
SELECT 1 / (count(*) = cardinality($21::text[]))::integer FROM held;

WITH held AS (
    INSERT INTO idempotency AS i (tenant_id, key, fingerprint, status, ids, explain, renderer, answer_sha256, request_id, as_of, created_ms)
    SELECT * FROM unnest($21::text[], $22::text[], $23::bytea[], $24::smallint[], $25::bytea[], $26::smallint[], $27::smallint[], $28::bytea[], $29::text[], $30::integer[], $31::bigint[]) ORDER BY 1, 2
    ON CONFLICT (tenant_id, key) DO UPDATE SET
        (tenant_id, key, fingerprint, status, ids, explain, renderer, answer_sha256, request_id, as_of, created_ms) = ROW (EXCLUDED.tenant_id, EXCLUDED.key, EXCLUDED.fingerprint, EXCLUDED.status, EXCLUDED.ids, EXCLUDED.explain, EXCLUDED.renderer, EXCLUDED.answer_sha256, EXCLUDED.request_id, EXCLUDED.as_of, EXCLUDED.created_ms)
        WHERE i.created_ms < EXCLUDED.created_ms - $32::bigint
    RETURNING 1
), added AS (INSERT INTO assessments (tenant_id, id, business_id, span, level, decision, score, model_sha256, input, record) SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::integer[], $5::smallint[], $6::smallint[], $7::smallint[], $8::bytea[], $9::bytea[], $10::bytea[])), entered AS (INSERT INTO audit_entries (tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash) VALUES ($11::text, $12::uuid, $13::bigint, $14::bigint, $15::text, $16::text, $17::bytea, $18::bytea, $19::bytea, $20::bytea))
SELECT 1 / (count(*) = cardinality($21::text[]))::integer FROM held;

WITH kept AS (
    INSERT INTO audit_checkpoints (tenant_id, number, at_ms, entries, heads, previous, hash, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (tenant_id, number) DO NOTHING RETURNING tenant_id
), covered AS (
    INSERT INTO audit_heads AS h (tenant_id, segment, number)
    SELECT k.tenant_id, u.segment, u.number FROM kept k, unnest($9::uuid[], $10::bigint[]) AS u (segment, number)
    ORDER BY 2
    ON CONFLICT (tenant_id, segment) DO UPDATE SET number = greatest(h.number, EXCLUDED.number)
)
SELECT count(*) FROM kept;

WITH used AS (SELECT * FROM unnest($1::text[], $2::bigint[]) AS u (id, used_ms)),
held AS (
    SELECT k.id FROM api_keys k JOIN used u ON u.id = k.id WHERE coalesce(k.last_used_ms < u.used_ms, true)
    ORDER BY k.id FOR UPDATE OF k
)
UPDATE api_keys k SET last_used_ms = greatest(k.last_used_ms, u.used_ms) FROM held h JOIN used u ON u.id = h.id
WHERE k.id = h.id;
