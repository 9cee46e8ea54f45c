-- name: image_facts(image_id)^
-- What an image is: nothing that was found out about it.
SELECT image_id, name, filter, canonical_filter, object, run, instrument, batch FROM images WHERE image_id = :image_id;

-- name: active_surveys()
-- Every survey that waits for images.
SELECT name, request FROM surveys WHERE active ORDER BY name;

-- name: mark_due(names, most_times)!
-- Something changed that concerns these surveys: each is due once it was quiet for its time, and at the latest so many
-- times that after the first change. In the order of their names: nobody waits for who waits for them.
UPDATE surveys AS s
SET changed_since = coalesce(s.changed_since, now()),
    due_at = least(now() + make_interval(secs => s.debounce_s),
                   coalesce(s.changed_since, now()) + make_interval(secs => :most_times * s.debounce_s))
FROM (SELECT name FROM surveys WHERE active AND name = ANY(:names::text[]) ORDER BY name FOR UPDATE) AS mine
WHERE s.name = mine.name;

-- name: due_surveys()
-- Surveys whose time has come, the longest waiting first.
SELECT name FROM surveys WHERE active AND due_at <= now() ORDER BY due_at, name;

-- name: take_turn(key)$
-- Whether nobody else looks at this survey now; it is ours until this transaction ends.
SELECT pg_try_advisory_xact_lock(hashtextextended(:key, 0));

-- name: survey(name)^
-- One survey; `seen` is another whenever anything of it changes.
SELECT name, request, active, created_by, created_at, debounce_s, rebuild_stale, members, due_at, changed_since,
       last_request_id, last_requested_at, last_seen, xmin::text AS seen, due_at <= now() AS due
FROM surveys WHERE name = :name;

-- name: hold_survey(name)^
-- The same as it is now, and nobody changes it until this transaction ends.
SELECT name, request, active, created_by, created_at, debounce_s, rebuild_stale, members, due_at, changed_since,
       last_request_id, last_requested_at, last_seen, xmin::text AS seen, due_at <= now() AS due
FROM surveys WHERE name = :name FOR UPDATE;

-- name: looked(name, last_seen, again_s)!
-- What its rules say, and when to look again; null: when something changes.
UPDATE surveys
SET last_seen = :last_seen,
    changed_since = CASE WHEN :again_s::double precision IS NULL THEN NULL ELSE coalesce(changed_since, now()) END,
    due_at = now() + make_interval(secs => :again_s)
WHERE name = :name;

-- name: asked(name, members, request_id)!
-- What it asked for.
UPDATE surveys SET members = :members, last_request_id = :request_id, last_requested_at = now() WHERE name = :name;

-- name: surveys()
-- All surveys with the stack that each asked for last.
SELECT s.name, s.request, s.active, s.created_by, s.created_at, s.debounce_s, s.rebuild_stale,
       cardinality(s.members) AS n_members, s.due_at, s.changed_since, s.last_request_id, s.last_requested_at, s.last_seen,
       k.stack_id, k.name AS stack, k.state, k.stale_since,
       (SELECT count(*) FROM stacks AS c WHERE c.survey = s.name) AS n_stacks
FROM surveys AS s LEFT JOIN stacks AS k ON k.request_id = s.last_request_id
ORDER BY s.name;

-- name: stacks_of_survey(name, max_rows)
-- What a survey asked for, newest first.
SELECT k.stack_id, k.request_id, k.name, k.state, k.created_at, k.stale_since, k.request ->> 'extends' AS extends,
       k.request ->> 'replaces' AS replaces,
       (SELECT count(*) FROM stack_members AS m WHERE m.stack_id = k.stack_id AND m.selected) AS n_members
FROM stacks AS k WHERE k.survey = :name
ORDER BY k.created_at DESC, k.stack_id LIMIT :max_rows;

-- name: add_survey(name, request, created_by, debounce_s, rebuild_stale, active)$
-- A new survey is due at once: it may well find what it looks for. Nothing comes back where the name is taken.
INSERT INTO surveys (name, request, created_by, debounce_s, rebuild_stale, active, due_at, changed_since)
VALUES (:name, :request, :created_by, :debounce_s, :rebuild_stale, :active, now(), now())
ON CONFLICT (name) DO NOTHING RETURNING name;

-- name: remove_survey(name)$
DELETE FROM surveys WHERE name = :name RETURNING name;

-- name: set_survey_active(name, active)$
-- Resumed, it is due at once: it heard nothing meanwhile.
UPDATE surveys
SET active = :active, due_at = CASE WHEN :active THEN now() END, changed_since = CASE WHEN :active THEN now() END
WHERE name = :name RETURNING name;

-- name: base(stack_id)^
-- A stack on whose sums another one is to go on.
SELECT stack_id, name, filter, state, combine, grid, plan, request, result -> 'coadd' -> 'sums' AS sums
FROM stacks WHERE stack_id = :stack_id;

-- name: base_of_request(request_id)^
-- The same by its request; what its survey had made instead of it since (somebody asked for that) counts for it. One that
-- something else is made instead of, before it was made itself, will not be made.
WITH RECURSIVE line AS (
    SELECT stack_id, survey FROM stacks WHERE request_id = :request_id
    UNION
    SELECT r.stack_id, r.survey FROM line AS l JOIN stacks AS r ON r.replaces = l.stack_id
    WHERE r.survey = l.survey AND r.state <> 'failed'
)
SELECT k.stack_id, k.name, k.filter, k.combine, k.grid, k.plan, k.request, k.result -> 'coadd' -> 'sums' AS sums,
       CASE WHEN k.state IN ('planned', 'calibrated')
                 AND EXISTS (SELECT 1 FROM stacks AS r WHERE r.replaces = k.stack_id AND r.state <> 'failed')
            THEN 'replaced' ELSE k.state END AS state
FROM stacks AS k JOIN line USING (stack_id) ORDER BY k.created_at DESC, k.stack_id LIMIT 1;

-- name: members_of(stack_id)
-- What a stack was planned of, in order.
SELECT m.image_id, i.name, m.solution_id FROM stack_members AS m JOIN images AS i USING (image_id)
WHERE m.stack_id = :stack_id AND m.selected ORDER BY m.ordinal;

-- name: corners_of(solution_ids)
-- Where these solutions put the corners of their CCDs.
SELECT solution_id, corners FROM solutions WHERE solution_id = ANY(:solution_ids::text[]);
