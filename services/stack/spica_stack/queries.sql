-- name: stack_of_request(request_id)^
-- The stack that this request made, if it was heard before.
SELECT stack_id, name, state FROM stacks WHERE request_id = :request_id;

-- name: candidates(batch, run, object, instrument, images)
-- Images that the identity rules leave, with what is known of each: its latest measurement, its grade
-- (a person's counts over a policy's, then the latest), its latest solution of its own, the version of its archive
-- file that counts instead of it, and a later delivery of the same exposure.
SELECT i.image_id, i.name, i.profile, i.instrument, i.run, i.filter, i.object, i.batch, i.exposure_time_s,
       i.mjd_obs, i.airmass, i.ra_deg, i.dec_deg,
       g.grade, g.graded_by,
       (m.metrics ->> 'fwhm_arcsec')::double precision AS fwhm_arcsec,
       (m.metrics ->> 'ellipticity')::double precision AS ellipticity,
       s.solution_id, s.header_path, i.superseded_by, newer.image_id AS newer_id
FROM images i
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
    SELECT solution_id, header_path FROM solutions
    WHERE image_id = i.image_id AND stack_id IS NULL
    ORDER BY (superseded_by IS NULL) DESC, created_at DESC, solution_id DESC LIMIT 1
) s ON true
LEFT JOIN LATERAL (
    SELECT n.image_id FROM images n
    WHERE n.name = i.name AND n.instrument = i.instrument
      AND n.mjd_obs IS NOT DISTINCT FROM i.mjd_obs AND n.created_at > i.created_at AND n.superseded_by IS NULL
    ORDER BY n.created_at DESC, n.image_id LIMIT 1
) newer ON true
WHERE (:batch::text IS NULL OR i.batch = :batch)
  AND (:run::text IS NULL OR i.run = :run)
  AND (:object::text IS NULL OR i.object = :object)
  AND (:instrument::text IS NULL OR i.instrument = :instrument)
  AND (cardinality(:images::text[]) = 0 OR i.image_id = ANY(:images) OR i.name = ANY(:images));

-- name: ccds_of(image_ids)
-- Sizes of the CCDs of these images, in the order of their HDUs.
SELECT image_id, name, naxis1, naxis2 FROM ccds WHERE image_id = ANY(:image_ids::text[]) ORDER BY image_id, hdu;

-- name: insert_stack(stack_id, request_id, name, filter, request, requested_at, grid, combine)^
-- Writes a planned stack; gives nothing back where its request (or the very stack) is known already.
INSERT INTO stacks (stack_id, request_id, name, filter, state, request, requested_at, grid, combine)
VALUES (:stack_id, :request_id, :name, :filter, 'planned', :request, :requested_at, :grid, :combine)
ON CONFLICT DO NOTHING
RETURNING stack_id;

-- name: insert_members(stack_id, image_id, ordinal, selected, rule, found, solution_id)*!
-- Writes the verdict on every candidate.
INSERT INTO stack_members (stack_id, image_id, ordinal, selected, rule, found, solution_id)
VALUES (:stack_id, :image_id, :ordinal, :selected, :rule, :found, :solution_id);

-- name: stack(stack_id)^
-- One stack as it was planned.
SELECT stack_id, request_id, name, filter, state, requested_at, grid, combine FROM stacks WHERE stack_id = :stack_id;

-- name: members(stack_id)
-- Members of a stack in their order, each with its files, the measurement that was its latest when the
-- stack was planned (so that making it again gives the same) and its joint solution.
SELECT i.image_id, i.name, i.path, i.sha256, i.size_bytes, i.profile, i.instrument, i.object, i.exposure_time_s,
       i.mjd_obs, m.weight_path, (m.metrics ->> 'fwhm_arcsec')::double precision AS fwhm_arcsec,
       (m.metrics ->> 'ellipticity')::double precision AS ellipticity,
       s.solution_id, s.header_path, s.flux_scale
FROM stack_members k
JOIN stacks t USING (stack_id)
JOIN images i USING (image_id)
LEFT JOIN LATERAL (
    SELECT weight_path, metrics FROM measurements
    WHERE subject_kind = 'image' AND subject_id = i.image_id AND created_at <= t.created_at
    ORDER BY created_at DESC, measurement_id DESC LIMIT 1
) m ON true
LEFT JOIN LATERAL (
    SELECT solution_id, header_path, flux_scale FROM solutions
    WHERE image_id = i.image_id AND solutions.stack_id = k.stack_id
    ORDER BY created_at DESC, solution_id DESC LIMIT 1
) s ON true
WHERE k.stack_id = :stack_id AND k.selected
ORDER BY k.ordinal;

-- name: products_at(paths)
-- The latest known content of these files.
SELECT DISTINCT ON (path) path, sha256, size_bytes, kind FROM products
WHERE path = ANY(:paths::text[])
ORDER BY path, product_id DESC;

-- name: set_coadded(result, stack_id)!
-- The stack's pixels are there; a stack that went further already stays where it is.
UPDATE stacks
SET state = CASE WHEN state IN ('done', 'exported') THEN state ELSE 'coadded' END,
    result = (result - 'failure') || :result, updated_at = now()
WHERE stack_id = :stack_id;

-- name: set_failed(failure, stack_id, dead_letter_id)!
-- A stage gave up, and its dead letter was not sent again meanwhile. What was made already stays; sent again,
-- the stack goes on from where it was.
UPDATE stacks
SET state = 'failed', result = result || jsonb_build_object('failure', :failure::jsonb), updated_at = now()
WHERE stack_id = :stack_id AND state <> 'exported'
  AND NOT EXISTS (
      SELECT 1 FROM dead_letters WHERE dead_letter_id = :dead_letter_id AND sent_again_at IS NOT NULL
  );
