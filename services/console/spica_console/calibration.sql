-- Solutions, what runs taught, and what newer solutions would change. Nothing here writes.

-- name: current(context, run, filter, batch, image_ids, max_rows)
-- The solution that counts of each image, newest first, and what it taught its context.
SELECT i.image_id, i.name, i.run, i.filter, i.batch, s.solution_id, s.version, s.engine, s.context, s.model_version,
       cardinality(s.context_solutions) AS n_context, s.reference_name, s.zeropoint_mag, s.limiting_mag, s.quality,
       s.created_at, t.version AS taught_version, g.grade
FROM solutions AS s
JOIN images AS i USING (image_id)
LEFT JOIN instrument_models AS t ON t.solution_id = s.solution_id
LEFT JOIN LATERAL (
    SELECT grade FROM grades
    WHERE subject_kind = 'image' AND subject_id = i.image_id
    ORDER BY (graded_by LIKE 'person:%') DESC, created_at DESC, grade_id DESC LIMIT 1
) AS g ON true
WHERE s.stack_id IS NULL AND s.superseded_by IS NULL AND i.superseded_by IS NULL
  AND (:context::text IS NULL OR s.context = :context)
  AND (:run::text IS NULL OR i.run = :run)
  AND (:filter::text IS NULL OR i.filter = :filter OR i.canonical_filter = :filter
       OR starts_with(i.filter, :filter || '.'))
  AND (:batch::text IS NULL OR i.batch = :batch)
  AND (:image_ids::text[] IS NULL OR i.image_id = ANY(:image_ids))
ORDER BY s.created_at DESC, s.solution_id
LIMIT :max_rows;

-- name: versions(image_id)
-- All solutions of an image: its own by their numbers, then those in stacks.
SELECT s.solution_id, s.version, s.stack_id, k.name AS stack, s.superseded_by, s.superseded_why, s.engine, s.context,
       s.model_version, s.context_solutions, s.measurement_id, s.header_path, s.reference_name, s.reference_sha256,
       s.zeropoint_mag, s.flux_scale, s.limiting_mag, s.quality, s.created_at, t.version AS taught_version
FROM solutions AS s
LEFT JOIN stacks AS k ON k.stack_id = s.stack_id
LEFT JOIN instrument_models AS t ON t.solution_id = s.solution_id
WHERE s.image_id = :image_id
ORDER BY s.stack_id IS NOT NULL, s.version NULLS FIRST, s.created_at, s.solution_id;

-- name: names_of_solutions(solution_ids)
-- Which images these solutions are of.
SELECT s.solution_id, s.version, i.name FROM solutions AS s JOIN images AS i USING (image_id)
WHERE s.solution_id = ANY(:solution_ids::text[]);

-- name: contexts(context)
-- Contexts, each with its newest model and how many images count in it.
SELECT m.context, m.version, m.n_exposures, m.repeat_mas, m.created_at,
       (SELECT count(*) FROM solutions AS s
        WHERE s.context = m.context AND s.stack_id IS NULL AND s.superseded_by IS NULL) AS images
FROM (SELECT DISTINCT ON (context) * FROM instrument_models ORDER BY context, version DESC) AS m
WHERE :context::text IS NULL OR m.context = :context
ORDER BY m.context;

-- name: models(context, max_rows)
-- Versions of one context's model, newest first.
SELECT m.context, m.version, m.model, m.n_exposures, m.repeat_mas, m.started_from, m.merged_with, m.solution_id,
       i.name AS image, m.created_at
FROM instrument_models AS m JOIN images AS i USING (image_id)
WHERE m.context = :context
ORDER BY m.version DESC LIMIT :max_rows;

-- name: model_versions(contexts, versions)
-- These versions of these contexts' models.
SELECT m.context, m.version, m.model FROM instrument_models AS m
JOIN unnest(:contexts::text[], :versions::integer[]) AS w(context, version) USING (context, version);

-- name: moved_members(stack_id)
-- Members of stacks that have a newer solution than the one that their stack was planned with.
SELECT k.stack_id, k.name AS stack, k.filter, k.state, k.created_at AS planned_at, i.image_id, i.name AS image,
       old.solution_id AS old_id, old.version AS old_version, old.corners AS old_corners,
       old.zeropoint_mag AS old_zeropoint_mag, new.solution_id AS new_id, new.version AS new_version,
       new.corners AS new_corners, new.zeropoint_mag AS new_zeropoint_mag, old.superseded_why AS why,
       (SELECT count(*) FROM stack_members AS x WHERE x.stack_id = k.stack_id AND x.selected) AS n_members
FROM stack_members AS m
JOIN stacks AS k USING (stack_id)
JOIN images AS i USING (image_id)
JOIN solutions AS old ON old.solution_id = m.solution_id
JOIN LATERAL (
    SELECT * FROM solutions
    WHERE image_id = m.image_id AND stack_id IS NULL AND superseded_by IS NULL
    ORDER BY created_at DESC, solution_id DESC LIMIT 1
) AS new ON new.solution_id <> old.solution_id
WHERE m.selected AND (:stack_id::text IS NULL OR k.stack_id = :stack_id)
ORDER BY k.created_at, k.stack_id, m.ordinal;

-- name: stacks_with(image_ids)
-- Stacks that these images are members of.
SELECT m.image_id, k.stack_id, k.name FROM stack_members AS m JOIN stacks AS k USING (stack_id)
WHERE m.selected AND m.image_id = ANY(:image_ids::text[])
ORDER BY k.created_at, k.stack_id;

-- name: joint(stack_id)
-- Members of a stack with their parts in its joint solution.
SELECT i.image_id, i.name, i.airmass, i.mjd_obs, i.is_photometric, i.sky_absorption_mag, own.zeropoint_mag AS own_zeropoint_mag,
       s.solution_id, s.engine, s.zeropoint_mag, s.flux_scale, s.quality
FROM stack_members AS m
JOIN images AS i USING (image_id)
LEFT JOIN solutions AS own ON own.solution_id = m.solution_id
LEFT JOIN LATERAL (
    SELECT * FROM solutions
    WHERE image_id = m.image_id AND solutions.stack_id = m.stack_id
    ORDER BY created_at DESC, solution_id DESC LIMIT 1
) AS s ON true
WHERE m.stack_id = :stack_id AND m.selected
ORDER BY m.ordinal;
