-- name: stack(stack_id)^
-- A stack's request, and the instrument profile of its members where it is one and the same.
SELECT s.request_id,
       (SELECT CASE WHEN count(DISTINCT i.profile) = 1 THEN min(i.profile) END
        FROM stack_members m JOIN images i USING (image_id)
        WHERE m.stack_id = s.stack_id AND m.selected) AS profile
FROM stacks s
WHERE s.stack_id = :stack_id;

-- name: insert_measurement(measurement_id, subject_kind, subject_id, metrics, per_ccd, catalogue_path, weight_path, preview_path)!
-- Adds an assessment. Its id follows from subject, code and policy: the same again says nothing new.
INSERT INTO measurements (measurement_id, subject_kind, subject_id, metrics, per_ccd,
                          catalogue_path, weight_path, preview_path)
VALUES (:measurement_id, :subject_kind, :subject_id, :metrics, :per_ccd,
        :catalogue_path, :weight_path, :preview_path)
ON CONFLICT (measurement_id) DO NOTHING;

-- name: insert_grade(grade_id, subject_kind, subject_id, grade, graded_by, reasons, measurement_id)!
-- Adds a grade.
INSERT INTO grades (grade_id, subject_kind, subject_id, grade, graded_by, reasons, measurement_id)
VALUES (:grade_id, :subject_kind, :subject_id, :grade, :graded_by, :reasons, :measurement_id)
ON CONFLICT (grade_id) DO NOTHING;

-- name: delete_sources(stack_id)!
-- Makes room for the catalogue of a stack that is measured again.
DELETE FROM sources WHERE stack_id = :stack_id;

-- name: set_done(stack_id, result)!
-- The stack is measured and graded; one that is delivered already stays so.
UPDATE stacks
SET state = CASE WHEN state = 'exported' THEN state ELSE 'done' END,
    result = (result - 'failure') || :result, updated_at = now()
WHERE stack_id = :stack_id;
