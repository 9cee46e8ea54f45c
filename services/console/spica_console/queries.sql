-- What people ask of the store. Only `insert_grade` writes.

-- name: counts()^
-- How many images and stacks stand where.
SELECT
    (SELECT count(*) FROM images)                                                     AS images,
    (SELECT count(*) FROM rejections)                                                 AS rejected,
    (SELECT count(DISTINCT subject_id) FROM grades WHERE subject_kind = 'image')      AS graded,
    (SELECT count(DISTINCT image_id) FROM solutions WHERE stack_id IS NULL)           AS calibrated,
    (SELECT count(*) FROM stacks)                                                     AS stacks,
    (SELECT count(*) FROM dead_letters WHERE sent_again_at IS NULL)                   AS dead_letters,
    (SELECT count(*) FROM outbox WHERE sent_at IS NULL)                               AS outbox_unsent;

-- name: grade_counts()
-- Images by the grade that holds now: a person's counts over a policy's, then the latest.
SELECT grade, count(*) AS images
FROM (SELECT DISTINCT ON (subject_id) subject_id, grade FROM grades
      WHERE subject_kind = 'image'
      ORDER BY subject_id, (graded_by LIKE 'person:%') DESC, created_at DESC, grade_id DESC) AS latest
GROUP BY grade ORDER BY grade;

-- name: stack_counts()
SELECT state, count(*) AS stacks FROM stacks GROUP BY state;

-- name: placed()$
-- Whether the host that was heard of last places images on nodes.
SELECT mode = 'nodes' FROM nodes ORDER BY seen_at DESC LIMIT 1;

-- name: list_images(batch, grade, filter, image_id, max_rows, skip)
-- Images with the grade, measurement and solution that hold now, newest first.
SELECT i.image_id, i.name, i.path, i.profile, i.instrument, i.run, i.filter, i.object, i.exposure_time_s,
       i.mjd_obs, i.airmass, i.ra_deg, i.dec_deg, i.wcs, i.n_ccds, i.batch, i.size_bytes, i.sha256,
       i.created_at, i.uri, i.superseded_by, i.canonical_filter, i.seeing_arcsec,
       g.grade, g.graded_by, g.reasons, m.metrics, m.preview_path, s.solution_id,
       s.zeropoint_mag, s.limiting_mag, s.quality
FROM images AS i
LEFT JOIN LATERAL (
    SELECT grade, graded_by, reasons FROM grades
    WHERE subject_kind = 'image' AND subject_id = i.image_id
    ORDER BY (graded_by LIKE 'person:%') DESC, created_at DESC, grade_id DESC LIMIT 1) AS g ON true
LEFT JOIN LATERAL (
    SELECT metrics, preview_path FROM measurements
    WHERE subject_kind = 'image' AND subject_id = i.image_id
    ORDER BY created_at DESC LIMIT 1) AS m ON true
LEFT JOIN LATERAL (
    SELECT solution_id, zeropoint_mag, limiting_mag, quality FROM solutions
    WHERE image_id = i.image_id AND stack_id IS NULL
    ORDER BY created_at DESC LIMIT 1) AS s ON true
WHERE (CAST(:batch AS text) IS NULL OR i.batch = :batch)
  AND (CAST(:grade AS text) IS NULL OR g.grade = :grade)
  AND (CAST(:filter AS text) IS NULL OR i.filter = :filter)
  AND (CAST(:image_id AS text) IS NULL OR i.image_id = :image_id)
ORDER BY i.created_at DESC, i.image_id
LIMIT :max_rows OFFSET :skip;

-- name: find_images(text)
-- By id, by name, or by the beginning of the id.
SELECT image_id, name FROM images
WHERE image_id = :text OR name = :text OR starts_with(image_id, :text)
ORDER BY image_id = :text DESC, name = :text DESC, created_at DESC
LIMIT 20;

-- name: image_with_sha256(sha256)^
SELECT image_id, name FROM images WHERE sha256 = :sha256 ORDER BY created_at DESC LIMIT 1;

-- name: image_with_uri(uri)^
-- The version that counts.
SELECT image_id, name FROM images WHERE uri = :uri ORDER BY superseded_by IS NULL DESC, created_at DESC LIMIT 1;

-- name: image_header(image_id)$
SELECT header FROM images WHERE image_id = :image_id;

-- name: image_loaded(image_id)^
-- What the headers tell, as rules select on it, and what was repaired.
SELECT repairs, primary_header, modified_at, announced, mjd_end, sky_absorption_mag, background_adu_per_s, agency_run,
       queue_run, camera_run, sequence_number, observation_type, principal_investigator, released_at,
       is_photometric, queue_grade, header_zeropoint_mag, header_zeropoint_sigma_mag,
       header_zeropoint_nominal_mag, header_airmass_term_mag, header_colour_term, footprint
FROM images WHERE image_id = :image_id;

-- name: image_versions(image_id)
-- All contents that its archive file had, the one that counts last.
SELECT v.image_id, v.modified_at, v.created_at, v.superseded_by
FROM images AS i JOIN images AS v ON v.uri = i.uri
WHERE i.image_id = :image_id ORDER BY v.modified_at NULLS FIRST, v.number;

-- name: image_auxiliaries(image_id)
-- Calibration frames that its header names.
SELECT a.kind, a.name, a.keyword, a.state, a.uri, a.path, a.sha256, a.size_bytes, a.reasons, a.asked_at, a.tried_at
FROM image_auxiliaries AS n JOIN auxiliaries AS a USING (kind, name)
WHERE n.image_id = :image_id ORDER BY a.kind;

-- name: image_ccds(image_id)
SELECT hdu, name, naxis1, naxis2, footprint FROM ccds WHERE image_id = :image_id ORDER BY hdu;

-- name: measurements_of(kind, id)
SELECT measurement_id, metrics, catalogue_path, weight_path, preview_path, products, created_at
FROM measurements WHERE subject_kind = :kind AND subject_id = :id ORDER BY created_at;

-- name: calibration_report_of_stack(stack_id)$
-- The page of the newest joint calibration.
SELECT p.path
FROM activities AS a JOIN was_generated_by AS g USING (activity_id) JOIN products AS p USING (product_id)
WHERE a.about = :stack_id AND a.service = 'calib' AND p.kind = 'report'
ORDER BY p.created_at DESC LIMIT 1;

-- name: grades_of(kind, id)
SELECT grade_id, grade, graded_by, reasons, comment, measurement_id, created_at
FROM grades WHERE subject_kind = :kind AND subject_id = :id ORDER BY created_at;

-- name: solutions_of_image(image_id)
-- With the page that the activity wrote which wrote the solution's header.
SELECT s.solution_id, s.stack_id, s.header_path, s.reference_name, s.reference_sha256, s.zeropoint_mag, s.flux_scale,
       s.limiting_mag, s.quality, s.created_at,
       (SELECT page.path
        FROM products AS head
        JOIN was_generated_by AS g ON g.product_id = head.product_id
        JOIN was_generated_by AS h ON h.activity_id = g.activity_id
        JOIN products AS page ON page.product_id = h.product_id
        WHERE head.path = s.header_path AND page.kind = 'report'
        ORDER BY page.created_at DESC LIMIT 1) AS report_path
FROM solutions AS s WHERE s.image_id = :image_id ORDER BY s.created_at;

-- name: stacks_of_image(image_id)
-- Every stack that looked at this image, and the rule that took it or left it out.
SELECT s.stack_id, s.name, s.filter, s.state, m.selected, m.rule, m.found
FROM stack_members AS m JOIN stacks AS s USING (stack_id)
WHERE m.image_id = :image_id ORDER BY s.created_at;

-- name: failures_about(text)
-- Dead letters whose body names this image or stack.
SELECT dead_letter_id, service, subject, code, message, numbers, attempts, created_at, sent_again_at
FROM dead_letters WHERE strpos(body, :text) > 0 ORDER BY created_at;

-- name: find_rejections(text)
SELECT rejection_id, name, uri, sha256, set_aside, reasons, batch, created_at
FROM rejections WHERE name = :text OR rejection_id = :text OR uri = :text ORDER BY created_at;

-- name: list_rejections(max_rows)
SELECT rejection_id, name, uri, sha256, set_aside, reasons, batch, created_at
FROM rejections ORDER BY created_at DESC LIMIT :max_rows;

-- name: list_stacks(max_rows, skip)
SELECT s.stack_id, s.request_id, s.name, s.filter, s.state, s.combine, s.requested_at, s.created_at,
       s.updated_at, s.result, g.grade, g.graded_by, m.metrics, m.preview_path,
       (SELECT count(*) FROM stack_members AS x WHERE x.stack_id = s.stack_id AND x.selected) AS n_members
FROM stacks AS s
LEFT JOIN LATERAL (
    SELECT grade, graded_by FROM grades
    WHERE subject_kind = 'stack' AND subject_id = s.stack_id
    ORDER BY created_at DESC LIMIT 1) AS g ON true
LEFT JOIN LATERAL (
    SELECT metrics, preview_path FROM measurements
    WHERE subject_kind = 'stack' AND subject_id = s.stack_id
    ORDER BY created_at DESC LIMIT 1) AS m ON true
ORDER BY s.created_at DESC
LIMIT :max_rows OFFSET :skip;

-- name: find_stacks(text)
SELECT stack_id, name FROM stacks
WHERE stack_id = :text OR request_id = :text OR name = :text OR starts_with(stack_id, :text)
ORDER BY stack_id = :text DESC, request_id = :text DESC, created_at DESC
LIMIT 20;

-- name: stack(stack_id)^
SELECT stack_id, request_id, name, filter, state, request, requested_at, grid, combine, result, created_at,
       updated_at
FROM stacks WHERE stack_id = :stack_id;

-- name: stack_members(stack_id)
SELECT m.image_id, i.name, m.ordinal, m.selected, m.rule, m.found, m.solution_id
FROM stack_members AS m JOIN images AS i USING (image_id)
WHERE m.stack_id = :stack_id ORDER BY m.selected DESC, m.ordinal, i.name;

-- name: product_at(path)^
SELECT product_id, path, sha256, size_bytes, kind, created_at
FROM products WHERE path = :path ORDER BY created_at DESC LIMIT 1;

-- name: products_about(about)
-- What activities about this image or stack made and no other activity about it used: the ends of its tree.
SELECT DISTINCT p.product_id, p.path, p.sha256, p.size_bytes, p.kind
FROM products AS p
JOIN was_generated_by AS g USING (product_id)
JOIN activities AS a USING (activity_id)
WHERE a.about = :about
  AND NOT EXISTS (
      SELECT 1 FROM used AS u JOIN activities AS b USING (activity_id)
      WHERE u.product_id = p.product_id AND b.about = :about)
ORDER BY p.path;

-- name: activities_about(about)
-- Without the single parts that a stack was made in, of which there may be thousands (see `parts_of_stack`); the one that
-- made its files is there.
SELECT activity_id, service, name, version, subject, started_at, ended_at, host, outcome, log
FROM activities AS a
WHERE about = :about
  AND (subject IS DISTINCT FROM 'stack.part_wanted'
       OR EXISTS (SELECT 1 FROM was_generated_by AS g WHERE g.activity_id = a.activity_id))
ORDER BY started_at;

-- name: parts_of_stack(stack_id)
-- How a stack was (or is being) made: of each step how many parts there are, how many are done, by whom, and how long
-- all of them took together.
SELECT step, count(*) AS parts, count(done_at) AS done,
       array_agg(DISTINCT host ORDER BY host) FILTER (WHERE host IS NOT NULL) AS hosts,
       sum(elapsed_s) AS work_s, max(elapsed_s) AS longest_s, min(done_at) AS first_done_at, max(done_at) AS last_done_at
FROM stack_parts WHERE stack_id = :stack_id
GROUP BY step ORDER BY array_position(ARRAY['prepare', 'tile', 'assemble'], step);

-- name: ancestry(product_ids)
-- For these products and all they came from: the newest activity that made each, and what it used.
WITH RECURSIVE reached(product_id) AS (
    SELECT unnest(CAST(:product_ids AS bigint[]))
    UNION
    SELECT u.product_id
    FROM reached AS r
    JOIN was_generated_by AS g ON g.product_id = r.product_id
    JOIN used AS u ON u.activity_id = g.activity_id
)
SELECT DISTINCT ON (p.product_id)
       p.product_id, p.path, p.sha256, p.size_bytes, p.kind,
       a.activity_id, a.service, a.name AS activity, a.version, a.configuration, a.event_id, a.about,
       a.started_at, a.ended_at, a.host, a.outcome, a.log,
       ARRAY(SELECT u.product_id FROM used AS u JOIN products AS q USING (product_id)
             WHERE u.activity_id = a.activity_id ORDER BY q.path) AS used
FROM reached AS r
JOIN products AS p USING (product_id)
LEFT JOIN was_generated_by AS g USING (product_id)
LEFT JOIN activities AS a USING (activity_id)
ORDER BY p.product_id, a.started_at DESC NULLS LAST;

-- name: handled_by(event_ids)
-- Which service has handled which of these events.
SELECT service, event_id FROM inbox WHERE event_id = ANY(CAST(:event_ids AS text[]));

-- name: insert_grade(grade_id, image_id, grade, graded_by, comment, measurement_id)!
INSERT INTO grades (grade_id, subject_kind, subject_id, grade, graded_by, comment, measurement_id)
VALUES (:grade_id, 'image', :image_id, :grade, :graded_by, :comment, :measurement_id);
