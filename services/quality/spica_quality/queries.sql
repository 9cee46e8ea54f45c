-- name: stack(stack_id)^
-- A stack's request, and the instrument profile of its members where it is one and the same.
SELECT s.request_id,
       (SELECT CASE WHEN count(DISTINCT i.profile) = 1 THEN min(i.profile) END
        FROM stack_members m JOIN images i USING (image_id)
        WHERE m.stack_id = s.stack_id AND m.selected) AS profile
FROM stacks s
WHERE s.stack_id = :stack_id;

-- name: auxiliaries(image_id)
-- Master flat and mask that an image's headers name, and how far ingest is with them.
SELECT a.kind, a.name, a.state, a.path, a.sha256, a.size_bytes, a.asked_at
FROM image_auxiliaries AS i JOIN auxiliaries AS a USING (kind, name)
WHERE i.image_id = :image_id
ORDER BY a.kind;

-- name: run_values(image_id, run, filter, profile, shortest_s, longest_s, figures)
-- Figures of the other images of a run through one filter with one instrument, exposed about as long, each by its latest
-- measurement.
SELECT f.key AS figure, array_agg(CAST(f.value AS double precision)) AS values
FROM images AS i
JOIN LATERAL (
    SELECT figures FROM measurements
    WHERE subject_kind = 'image' AND subject_id = i.image_id
    ORDER BY created_at DESC, measurement_id DESC LIMIT 1
) AS m ON true
CROSS JOIN LATERAL jsonb_each(m.figures) AS f
WHERE i.run = :run AND i.filter = :filter AND i.profile = :profile AND i.image_id <> :image_id
  AND i.exposure_time_s BETWEEN :shortest_s AND :longest_s
  AND i.superseded_by IS NULL
  AND f.key = ANY(:figures::text[]) AND jsonb_typeof(f.value) = 'number'
GROUP BY f.key;

-- name: exposure_times(image_ids)
-- How long images were exposed.
SELECT image_id, exposure_time_s FROM images WHERE image_id = ANY(:image_ids::text[]);

-- name: insert_measurement(measurement_id, subject_kind, subject_id, metrics, figures, per_ccd, catalogue_path, weight_path, preview_path, products)!
-- Adds an assessment. Its id follows from all that it depends on: the same again says nothing new.
INSERT INTO measurements (measurement_id, subject_kind, subject_id, metrics, figures, per_ccd,
                          catalogue_path, weight_path, preview_path, products)
VALUES (:measurement_id, :subject_kind, :subject_id, :metrics, :figures, :per_ccd,
        :catalogue_path, :weight_path, :preview_path, :products)
ON CONFLICT (measurement_id) DO NOTHING;

-- name: insert_grade(grade_id, subject_kind, subject_id, grade, graded_by, reasons, measurement_id)!
-- Adds a grade.
INSERT INTO grades (grade_id, subject_kind, subject_id, grade, graded_by, reasons, measurement_id)
VALUES (:grade_id, :subject_kind, :subject_id, :grade, :graded_by, :reasons, :measurement_id)
ON CONFLICT (grade_id) DO NOTHING;

-- name: insert_verdict(verdict_id, measurement_id, policy, use, grade, reasons, ccds_out)!
-- Adds what a policy says of a measurement.
INSERT INTO verdicts (verdict_id, measurement_id, policy, use, grade, reasons, ccds_out)
VALUES (:verdict_id, :measurement_id, :policy, :use, :grade, :reasons, :ccds_out)
ON CONFLICT (verdict_id) DO NOTHING;

-- name: delete_sources(stack_id)!
-- Makes room for the catalogue of a stack that is measured again.
DELETE FROM sources WHERE stack_id = :stack_id;

-- name: set_done(stack_id, result)!
-- The stack is measured and graded; one that is delivered already stays so.
UPDATE stacks
SET state = CASE WHEN state = 'exported' THEN state ELSE 'done' END,
    result = (result - 'failure') || :result, updated_at = now()
WHERE stack_id = :stack_id;
