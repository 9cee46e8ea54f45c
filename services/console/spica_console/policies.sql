-- What policies judge by and what they said. Only `insert_verdict` and `insert_policy_grade` write.

-- name: runs_of(filter, filters, run, object, instrument, batch, image_id)
-- Runs, filters and profiles of the images that are selected.
SELECT DISTINCT run, filter, profile FROM images AS i
WHERE i.superseded_by IS NULL
  AND (:image_id::text IS NULL OR i.image_id = :image_id)
  AND (:filter::text IS NULL OR i.filter = ANY(:filters::text[]) OR i.canonical_filter = ANY(:filters)
       OR starts_with(i.filter, :filter || '.'))
  AND (:run::text IS NULL OR i.run = :run)
  AND (:object::text IS NULL OR i.object = :object)
  AND (:instrument::text IS NULL OR i.instrument = :instrument OR i.profile = :instrument)
  AND (:batch::text IS NULL OR i.batch = :batch);

-- name: run_figures(runs, filters, profiles, figures)
-- Figures of all images of these runs, each by its latest measurement.
SELECT i.run, i.filter, i.profile, i.image_id, f.key AS figure, CAST(f.value AS double precision) AS value
FROM unnest(:runs::text[], :filters::text[], :profiles::text[]) AS r(run, filter, profile)
JOIN images AS i ON i.run = r.run AND i.filter = r.filter AND i.profile = r.profile
JOIN LATERAL (
    SELECT figures FROM measurements
    WHERE subject_kind = 'image' AND subject_id = i.image_id
    ORDER BY created_at DESC, measurement_id DESC LIMIT 1
) AS m ON true
CROSS JOIN LATERAL jsonb_each(m.figures) AS f
WHERE i.superseded_by IS NULL AND f.key = ANY(:figures::text[]) AND jsonb_typeof(f.value) = 'number';

-- name: measured(filter, filters, run, object, instrument, batch, image_id, after, max_rows)
-- Images that are selected, each with its latest measurement, the depth of its own solution, and a person's latest grade.
SELECT i.number, i.image_id, i.name, i.run, i.filter, i.profile, i.instrument, i.object, i.batch, i.exposure_time_s,
       m.measurement_id, m.figures, m.per_ccd, s.limiting_mag, p.grade AS person_grade, p.graded_by AS person
FROM images AS i
JOIN LATERAL (
    SELECT measurement_id, figures, per_ccd FROM measurements
    WHERE subject_kind = 'image' AND subject_id = i.image_id
    ORDER BY created_at DESC, measurement_id DESC LIMIT 1
) AS m ON true
LEFT JOIN LATERAL (
    SELECT limiting_mag FROM solutions
    WHERE image_id = i.image_id AND stack_id IS NULL
    ORDER BY created_at DESC, solution_id DESC LIMIT 1
) AS s ON true
LEFT JOIN LATERAL (
    SELECT grade, graded_by FROM grades
    WHERE subject_kind = 'image' AND subject_id = i.image_id AND graded_by LIKE 'person:%'
    ORDER BY created_at DESC, grade_id DESC LIMIT 1
) AS p ON true
WHERE i.superseded_by IS NULL AND i.number > :after
  AND (:image_id::text IS NULL OR i.image_id = :image_id)
  AND (:filter::text IS NULL OR i.filter = ANY(:filters::text[]) OR i.canonical_filter = ANY(:filters)
       OR starts_with(i.filter, :filter || '.'))
  AND (:run::text IS NULL OR i.run = :run)
  AND (:object::text IS NULL OR i.object = :object)
  AND (:instrument::text IS NULL OR i.instrument = :instrument OR i.profile = :instrument)
  AND (:batch::text IS NULL OR i.batch = :batch)
ORDER BY i.number
LIMIT :max_rows;

-- name: stack_measured(stack_id)^
-- A stack with its latest measurement.
SELECT s.stack_id, s.name, s.filter, m.measurement_id, m.figures, m.per_ccd
FROM stacks AS s
JOIN LATERAL (
    SELECT measurement_id, figures, per_ccd FROM measurements
    WHERE subject_kind = 'stack' AND subject_id = s.stack_id
    ORDER BY created_at DESC, measurement_id DESC LIMIT 1
) AS m ON true
WHERE s.stack_id = :stack_id;

-- name: verdict_counts()
-- Images at each grade by each policy: the latest verdict on the latest measurement counts.
SELECT split_part(v.policy, '@', 1) AS name, v.policy, v.grade, count(*) AS images
FROM images AS i
JOIN LATERAL (
    SELECT measurement_id FROM measurements
    WHERE subject_kind = 'image' AND subject_id = i.image_id
    ORDER BY created_at DESC, measurement_id DESC LIMIT 1
) AS m ON true
JOIN LATERAL (
    SELECT DISTINCT ON (split_part(policy, '@', 1)) policy, grade FROM verdicts
    WHERE measurement_id = m.measurement_id
    ORDER BY split_part(policy, '@', 1), created_at DESC, verdict_id
) AS v ON true
WHERE i.superseded_by IS NULL
GROUP BY v.policy, v.grade;

-- name: verdicts_on(measurement_id)
-- The latest verdict of each policy on a measurement.
SELECT DISTINCT ON (split_part(policy, '@', 1))
       split_part(policy, '@', 1) AS name, verdict_id, policy, use, grade, reasons, ccds_out, created_at
FROM verdicts WHERE measurement_id = :measurement_id
ORDER BY split_part(policy, '@', 1), created_at DESC, verdict_id;

-- name: grade_that_holds(kind, id)^
-- A person's grade over any policy's, then the latest.
SELECT grade, graded_by, reasons, comment, created_at FROM grades
WHERE subject_kind = :kind AND subject_id = :id
ORDER BY (graded_by LIKE 'person:%') DESC, created_at DESC, grade_id DESC LIMIT 1;

-- name: names_like(text)
-- Names that begin as this one does, or end so.
SELECT DISTINCT name FROM (
    SELECT name FROM images WHERE left(name, 3) = left(:text, 3) OR right(name, 4) = right(:text, 4)
    UNION ALL
    SELECT name FROM stacks
) AS known LIMIT 5000;

-- name: lock_measurement(measurement_id)^
-- The measurement, for one judge at a time; none if there is a later one of the same image meanwhile.
SELECT m.measurement_id, m.metrics, m.catalogue_path, m.weight_path, m.preview_path, m.products
FROM measurements AS m
WHERE m.measurement_id = :measurement_id
  AND NOT EXISTS (
      SELECT 1 FROM measurements AS n
      WHERE n.subject_kind = m.subject_kind AND n.subject_id = m.subject_id
        AND (n.created_at, n.measurement_id) > (m.created_at, m.measurement_id))
FOR UPDATE;

-- name: insert_verdict(verdict_id, measurement_id, policy, use, grade, reasons, ccds_out)!
INSERT INTO verdicts (verdict_id, measurement_id, policy, use, grade, reasons, ccds_out)
VALUES (:verdict_id, :measurement_id, :policy, :use, :grade, :reasons, :ccds_out);

-- name: insert_policy_grade(grade_id, image_id, grade, graded_by, reasons, measurement_id)!
INSERT INTO grades (grade_id, subject_kind, subject_id, grade, graded_by, reasons, measurement_id)
VALUES (:grade_id, 'image', :image_id, :grade, :graded_by, :reasons, :measurement_id);
