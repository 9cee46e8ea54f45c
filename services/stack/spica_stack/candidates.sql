-- name: candidates(batch, run, object, instrument, images, policies, placed, x, y, z, reach_rad)
-- Images that the rules on identity and place leave, with what is known of each: its latest measurement, its grade
-- (a person's counts over a policy's, then the latest) and those of the policies asked for, its latest solution of its
-- own, its tags, the version of its archive file that counts instead of it, and a later delivery of the same exposure.
-- Columns stand in the order of Candidate's fields.
SELECT i.image_id, i.name, i.instrument, i.run, i.filter, i.object, i.batch, i.exposure_time_s, i.mjd_obs, i.airmass,
       i.ra_deg, i.dec_deg, g.grade, g.graded_by, m.fwhm_arcsec, m.ellipticity, s.solution_id, i.superseded_by,
       newer.image_id AS newer_id, i.canonical_filter, i.sky_absorption_mag,
       coalesce(m.background_adu / nullif(i.exposure_time_s, 0), i.background_adu_per_s) AS background_adu_per_s,
       coalesce(s.limiting_mag, m.limiting_mag) AS limiting_mag, i.is_photometric, s.header_path,
       coalesce(s.centre_x, i.centre_x) AS centre_x, coalesce(s.centre_y, i.centre_y) AS centre_y,
       coalesce(s.centre_z, i.centre_z) AS centre_z, coalesce(s.radius_rad, i.radius_rad) AS radius_rad,
       t.tags, p.policy_grades
FROM images i
LEFT JOIN LATERAL (
    SELECT measurement_id, f.*
    FROM measurements, jsonb_to_record(metrics) AS f(
        fwhm_arcsec double precision, ellipticity double precision, background_adu double precision,
        limiting_mag double precision
    )
    WHERE subject_kind = 'image' AND subject_id = i.image_id
    ORDER BY created_at DESC, measurement_id DESC LIMIT 1
) m ON true
LEFT JOIN LATERAL (
    SELECT grade, graded_by FROM grades
    WHERE subject_kind = 'image' AND subject_id = i.image_id
    ORDER BY (graded_by LIKE 'person:%') DESC, created_at DESC, grade_id DESC LIMIT 1
) g ON true
LEFT JOIN LATERAL (
    SELECT solution_id, header_path, limiting_mag, centre_x, centre_y, centre_z, radius_rad FROM solutions
    WHERE image_id = i.image_id AND stack_id IS NULL
    ORDER BY (superseded_by IS NULL) DESC, created_at DESC, solution_id DESC LIMIT 1
) s ON true
LEFT JOIN LATERAL (
    SELECT n.image_id FROM images n
    WHERE n.name = i.name AND n.instrument = i.instrument
      AND n.mjd_obs IS NOT DISTINCT FROM i.mjd_obs AND n.created_at > i.created_at AND n.superseded_by IS NULL
    ORDER BY n.created_at DESC, n.image_id LIMIT 1
) newer ON true
LEFT JOIN LATERAL (SELECT array_agg(tag ORDER BY tag) AS tags FROM image_tags WHERE image_id = i.image_id) t ON true
LEFT JOIN LATERAL (
    SELECT array_agg(name || '=' || grade || '=' || policy) AS policy_grades
    FROM (
        SELECT DISTINCT ON (split_part(policy, '@', 1)) split_part(policy, '@', 1) AS name, grade, policy FROM verdicts
        WHERE cardinality(:policies::text[]) > 0 AND measurement_id = m.measurement_id
          AND split_part(policy, '@', 1) = ANY(:policies::text[])
        ORDER BY split_part(policy, '@', 1), created_at DESC, verdict_id DESC
    ) latest
) p ON true
WHERE (:batch::text IS NULL OR i.batch = :batch)
  AND (:run::text IS NULL OR i.run = :run)
  AND (:object::text IS NULL OR i.object = :object)
  AND (:instrument::text IS NULL OR i.instrument = :instrument)
  AND (cardinality(:images::text[]) = 0 OR i.image_id = ANY(:images) OR i.name = ANY(:images))
  AND (NOT :placed::boolean OR i.centre_x IS NULL
       OR i.centre_x * :x::double precision + i.centre_y * :y::double precision + i.centre_z * :z::double precision
          >= cos(least(pi(), i.radius_rad + :reach_rad::double precision)));

-- name: corners(solution_ids)
-- Where these solutions put the corners of CCDs, as PostgreSQL sends an array: read at once, not number by number.
SELECT solution_id, array_send(corners) AS corners FROM solutions
WHERE solution_id = ANY(:solution_ids::text[]) AND corners IS NOT NULL;

-- name: header_corners(image_ids)
-- Where the headers of these images put the corners of their CCDs.
SELECT image_id, corners FROM images WHERE image_id = ANY(:image_ids::text[]) AND corners IS NOT NULL;

-- name: ccd_sizes(image_ids)
-- Sizes of the CCDs of these images, in the order of their HDUs.
SELECT image_id, name, naxis1, naxis2 FROM ccds WHERE image_id = ANY(:image_ids::text[]) ORDER BY image_id, hdu;

-- name: saved_selections(names)
-- Selections that were saved under these names.
SELECT name, selection FROM selections WHERE name = ANY(:names::text[]);

-- name: names_of(kind)
-- What images are called by one of their names, the most frequent first.
SELECT name, count(*) AS images
FROM (
    SELECT CASE :kind::text WHEN 'object' THEN object WHEN 'run' THEN run WHEN 'batch' THEN batch
                            WHEN 'instrument' THEN instrument ELSE filter END AS name
    FROM images WHERE superseded_by IS NULL
) named
WHERE name IS NOT NULL GROUP BY name ORDER BY count(*) DESC, name LIMIT 2000;

-- name: known_images(names)
-- Which of these are names or ids of images.
SELECT DISTINCT wanted FROM unnest(:names::text[]) AS wanted
JOIN images ON image_id = wanted OR name = wanted;
