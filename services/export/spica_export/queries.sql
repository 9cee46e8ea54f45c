-- name: stack(stack_id)^
-- One stack, and the names, as far as they begin alike, of those planned before it.
SELECT s.stack_id, s.request_id, s.name, s.filter, s.combine, s.request, s.requested_at, s.grid, s.result,
       ARRAY(SELECT DISTINCT e.name FROM stacks e
             WHERE starts_with(e.name, rtrim(s.name, '-. '))
               AND (e.created_at, e.stack_id) < (s.created_at, s.stack_id)) AS earlier_names
FROM stacks s WHERE s.stack_id = :stack_id;

-- name: inputs(stack_id)
-- Members of a stack with their grades, measurements and joint solutions.
SELECT i.name, i.image_id, i.sha256, i.instrument, i.run, i.filter, i.object, i.exposure_time_s, i.mjd_obs,
       i.airmass, g.grade, g.graded_by,
       (m.metrics ->> 'fwhm_arcsec')::double precision AS fwhm_arcsec,
       (m.metrics ->> 'ellipticity')::double precision AS ellipticity,
       s.zeropoint_mag, s.flux_scale, s.limiting_mag, s.solution_id,
       s.reference_name AS reference, s.reference_sha256
FROM stack_members k
JOIN images i USING (image_id)
LEFT JOIN LATERAL (
    SELECT metrics FROM measurements
    WHERE subject_kind = 'image' AND subject_id = i.image_id
    ORDER BY created_at DESC, measurement_id DESC LIMIT 1
) m ON true
LEFT JOIN LATERAL (
    SELECT grade, graded_by FROM grades
    WHERE subject_kind = 'image' AND subject_id = i.image_id
    ORDER BY (graded_by LIKE 'person:%') DESC, created_at DESC, grade_id DESC LIMIT 1
) g ON true
LEFT JOIN LATERAL (
    SELECT * FROM solutions
    WHERE image_id = i.image_id AND solutions.stack_id = k.stack_id
    ORDER BY created_at DESC, solution_id DESC LIMIT 1
) s ON true
WHERE k.stack_id = :stack_id AND k.selected
ORDER BY k.ordinal;

-- name: left_out(stack_id)
-- Candidates that are not members, and why.
SELECT i.name, k.image_id, k.rule, k.found
FROM stack_members k JOIN images i USING (image_id)
WHERE k.stack_id = :stack_id AND NOT k.selected
ORDER BY i.name, k.image_id;

-- name: steps(stack_id)
-- What was done for the stack and for each of its members, in the order of the flow: not the single parts that it was
-- made in (but what put them together), nor what was thought about other stacks when something of a member changed.
SELECT a.service, a.name, a.version, a.about, a.outcome, a.configuration
FROM activities a
WHERE (a.about = :stack_id OR a.about IN (
    SELECT image_id FROM stack_members WHERE stack_id = :stack_id AND selected))
  AND a.service <> 'export'
  AND (a.service <> 'stack' OR a.about = :stack_id)
  AND (a.subject <> 'stack.part_wanted'
       OR EXISTS (SELECT 1 FROM was_generated_by g WHERE g.activity_id = a.activity_id))
ORDER BY (a.about = :stack_id), a.about, a.started_at, a.activity_id;

-- name: set_exported(result, stack_id)!
-- The product is delivered; the receipts stay in the store.
UPDATE stacks SET state = 'exported', result = (result - 'failure') || :result, updated_at = now() WHERE stack_id = :stack_id;
