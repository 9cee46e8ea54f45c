-- name: hold_stacks_with(image_ids)
-- Stacks that have one of these images as a member, in an order in which nobody waits for who waits for them. Not those
-- that another one was made instead of: a survey leaves one behind for every night.
SELECT k.stack_id, k.name, k.request, k.state, k.stale_since, k.stale_reasons FROM stacks AS k
WHERE k.state <> 'failed'
  AND EXISTS (SELECT 1 FROM stack_members AS m
              WHERE m.stack_id = k.stack_id AND m.selected AND m.image_id = ANY(:image_ids::text[]))
  AND NOT EXISTS (SELECT 1 FROM stacks AS n
                  WHERE n.replaces = k.stack_id AND n.state IN ('coadded', 'done', 'exported'))
ORDER BY k.stack_id FOR NO KEY UPDATE OF k;

-- name: hold_stack(stack_id)^
SELECT stack_id, name, request, state, stale_since, stale_reasons FROM stacks
WHERE stack_id = :stack_id AND state <> 'failed' FOR NO KEY UPDATE;

-- name: members(stack_ids, image_ids)
-- Members of stacks (all, or these), each with its solution at planning and the one that counts now.
SELECT m.stack_id, m.image_id, i.name, m.solution_id AS was, old.superseded_why AS why, now_.solution_id AS is_now, now_.version
FROM stack_members AS m
JOIN images AS i USING (image_id)
LEFT JOIN solutions AS old ON old.solution_id = m.solution_id
LEFT JOIN LATERAL (
    SELECT solution_id, version FROM solutions
    WHERE image_id = m.image_id AND stack_id IS NULL AND superseded_by IS NULL
    ORDER BY created_at DESC, solution_id DESC LIMIT 1
) AS now_ ON true
WHERE m.stack_id = ANY(:stack_ids::text[]) AND m.selected
  AND (:image_ids::text[] IS NULL OR m.image_id = ANY(:image_ids))
ORDER BY m.stack_id, m.ordinal;

-- name: set_stale(stack_id, reasons)!
-- Why a stack would come out otherwise today; for no reason at all, it would not.
UPDATE stacks
SET stale_reasons = :reasons, updated_at = now(),
    stale_since = CASE WHEN jsonb_array_length(:reasons::jsonb) = 0 THEN NULL ELSE coalesce(stale_since, now()) END
WHERE stack_id = :stack_id;

-- name: lately_planned(seconds)
-- Stacks that were planned lately: what changed while they were may have been told before they stood here.
SELECT stack_id FROM stacks AS k
WHERE created_at > now() - make_interval(secs => :seconds) AND state <> 'failed'
  AND NOT EXISTS (SELECT 1 FROM stacks AS n
                  WHERE n.replaces = k.stack_id AND n.state IN ('coadded', 'done', 'exported'))
ORDER BY stack_id;

-- name: stale(stack_ids)
-- Stacks that would come out otherwise today and that no other one was made instead of, the longest stale first.
SELECT k.stack_id, k.name, k.filter, k.state, k.request, k.created_at, k.stale_since, k.stale_reasons,
       k.survey, v.active AND v.rebuild_stale AS rebuilt_by_survey,
       (SELECT count(*) FROM stack_members AS m WHERE m.stack_id = k.stack_id AND m.selected) AS n_members
FROM stacks AS k
LEFT JOIN surveys AS v ON v.name = k.survey AND v.last_request_id = k.request_id
WHERE k.stale_since IS NOT NULL AND k.state <> 'failed'
  AND (:stack_ids::text[] IS NULL OR k.stack_id = ANY(:stack_ids))
  AND NOT EXISTS (SELECT 1 FROM stacks AS n WHERE n.replaces = k.stack_id AND n.state <> 'failed')
ORDER BY k.stale_since, k.stack_id;

-- name: stacks(stack_ids)
-- These stacks, whatever they are.
SELECT stack_id, name, filter, state, request, created_at, stale_since, stale_reasons
FROM stacks WHERE stack_id = ANY(:stack_ids::text[]) ORDER BY created_at, stack_id;
