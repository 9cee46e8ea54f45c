-- name: image(image_id)^
-- What calibration must know of an image.
SELECT image_id, name, profile, filter, exposure_time_s, mjd_obs, airmass, ra_deg, dec_deg, wcs, header, batch,
       header_zeropoint_mag, header_zeropoint_sigma_mag, header_zeropoint_nominal_mag, header_airmass_term_mag,
       header_colour_term, sky_absorption_mag, is_photometric, corners, centre_x, centre_y, centre_z, radius_rad
FROM images WHERE image_id = :image_id;

-- name: grade(image_id)$
-- The grade that counts: a person's over any policy's, then the latest; null: none.
SELECT grade FROM grades
WHERE subject_kind = 'image' AND subject_id = :image_id
ORDER BY (graded_by LIKE 'person:%') DESC, created_at DESC, grade_id DESC LIMIT 1;

-- name: ccds(image_id)
-- CCDs of an image in the order of its HDUs.
SELECT name, naxis1, naxis2 FROM ccds WHERE image_id = :image_id ORDER BY hdu;

-- name: measurement(image_id, measurement_id)^
-- One measurement of an image; the latest where none is named.
SELECT measurement_id, catalogue_path, metrics, per_ccd FROM measurements
WHERE subject_kind = 'image' AND subject_id = :image_id
  AND (:measurement_id::text IS NULL OR measurement_id = :measurement_id)
ORDER BY created_at DESC, measurement_id DESC LIMIT 1;

-- name: solved(image_id, measurement_id, reference_sha256, engine)^
-- What counts of an image, if it was solved from this measurement, against this reference and by this engine.
SELECT solution_id, header_path, model_version, context_solutions FROM solutions
WHERE image_id = :image_id AND stack_id IS NULL AND superseded_by IS NULL AND measurement_id = :measurement_id
  AND reference_sha256 = :reference_sha256 AND engine = :engine
ORDER BY created_at DESC, solution_id DESC LIMIT 1;

-- name: solution_exists(solution_id)$
-- Whether this solution was found before.
SELECT EXISTS (SELECT 1 FROM solutions WHERE solution_id = :solution_id);

-- name: superseded_by(solution_id)$
-- The solution that a solution was superseded by; null where there is none, or no such solution.
SELECT superseded_by FROM solutions WHERE solution_id = :solution_id;

-- name: overtaken(image_id, measurement_id)$
-- Whether the solution that counts of an image stands on a later measurement than this one.
SELECT EXISTS (
    SELECT 1 FROM solutions AS s
    JOIN measurements AS later USING (measurement_id)
    JOIN measurements AS this ON this.measurement_id = :measurement_id
    WHERE s.image_id = :image_id AND s.stack_id IS NULL AND s.superseded_by IS NULL
      AND (later.created_at, later.measurement_id) > (this.created_at, this.measurement_id));

-- name: neighbours(context, image_id, x, y, z, radius_rad, reference_name, reference_sha256, solution_ids, max_rows)
-- Images of a context whose solutions lie near, the nearest first; with `solution_ids`, those alone. No image that is
-- not fit for use, none that another reference catalogue put on another sky (`reference_sha256`: where it is one file),
-- and no version of an archive file that another one counts instead of.
SELECT i.image_id, i.name, i.profile, i.filter, i.exposure_time_s, i.mjd_obs, i.airmass, i.ra_deg, i.dec_deg, i.header,
       i.header_zeropoint_mag, i.header_zeropoint_sigma_mag, i.header_zeropoint_nominal_mag, i.header_airmass_term_mag,
       i.header_colour_term, i.sky_absorption_mag, i.is_photometric,
       s.solution_id, s.header_path, s.zeropoint_mag, s.quality, s.corners,
       m.measurement_id, m.catalogue_path, m.metrics, m.per_ccd
FROM solutions s
JOIN images i USING (image_id)
JOIN measurements m ON m.measurement_id = s.measurement_id
LEFT JOIN LATERAL (
    SELECT grade FROM grades
    WHERE subject_kind = 'image' AND subject_id = i.image_id
    ORDER BY (graded_by LIKE 'person:%') DESC, created_at DESC, grade_id DESC LIMIT 1
) g ON true
WHERE s.context = :context AND s.stack_id IS NULL AND s.image_id <> :image_id
  AND s.centre_x * :x + s.centre_y * :y + s.centre_z * :z >= cos(least(pi(), s.radius_rad + :radius_rad))
  AND (s.solution_id = ANY(:solution_ids::text[])
       OR (:solution_ids::text[] IS NULL AND s.superseded_by IS NULL AND i.superseded_by IS NULL
           AND s.reference_name = :reference_name
           AND (:reference_sha256::text IS NULL OR s.reference_sha256 = :reference_sha256)
           AND g.grade IS DISTINCT FROM 'D'))
ORDER BY s.centre_x * :x + s.centre_y * :y + s.centre_z * :z DESC, s.created_at DESC, s.solution_id
LIMIT :max_rows;

-- name: newest_model(context)^
-- What new images of a context start from.
SELECT version, model, illumination FROM instrument_models WHERE context = :context ORDER BY version DESC LIMIT 1;

-- name: model(context, version)^
-- One version of a context's model.
SELECT version, model, illumination FROM instrument_models WHERE context = :context AND version = :version;

-- name: models_at_planning(contexts, stack_id)
-- The newest version of each context's model when a stack was planned, so that making it again gives the same.
SELECT DISTINCT ON (context) context, version, model, illumination FROM instrument_models
WHERE context = ANY(:contexts::text[])
  AND created_at <= (SELECT created_at FROM stacks WHERE stack_id = :stack_id)
ORDER BY context, version DESC;

-- name: has_taught(context, image_id)$
-- Whether what an image teaches of a context is in its model already.
SELECT EXISTS (SELECT 1 FROM instrument_models WHERE context = :context AND image_id = :image_id);

-- name: turn(key)$
-- Nobody else has this turn until this transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended(:key, 0));

-- name: add_model(context, version, model, illumination, n_exposures, repeat_mas, started_from, merged_with, solution_id, image_id)!
-- One more version of a context's model.
INSERT INTO instrument_models (context, version, model, illumination, n_exposures, repeat_mas, started_from,
                               merged_with, solution_id, image_id)
VALUES (:context, :version, :model, :illumination, :n_exposures, :repeat_mas, :started_from, :merged_with, :solution_id, :image_id);

-- name: current(image_id)^
-- The solution of its own that counts of an image, from what it came, and the highest version that it ever had.
SELECT solution_id, measurement_id, reference_sha256, engine,
       (SELECT max(v.version) FROM solutions v WHERE v.image_id = s.image_id AND v.stack_id IS NULL) AS highest
FROM solutions s
WHERE image_id = :image_id AND stack_id IS NULL AND superseded_by IS NULL
ORDER BY created_at DESC, solution_id DESC LIMIT 1;

-- name: add_solution(solution_id, image_id, stack_id, header_path, reference_name, reference_sha256, zeropoint_mag, flux_scale, limiting_mag, quality, version, engine, measurement_id, context, model_version, context_solutions, corners, centre_x, centre_y, centre_z, radius_rad)$
-- Keep a solution; gives its id back only when it is new.
INSERT INTO solutions (solution_id, image_id, stack_id, header_path, reference_name, reference_sha256, zeropoint_mag,
                       flux_scale, limiting_mag, quality, version, engine, measurement_id, context, model_version,
                       context_solutions, corners, centre_x, centre_y, centre_z, radius_rad)
VALUES (:solution_id, :image_id, :stack_id, :header_path, :reference_name, :reference_sha256, :zeropoint_mag,
        :flux_scale, :limiting_mag, :quality, :version, :engine, :measurement_id, :context, :model_version,
        :context_solutions, :corners, :centre_x, :centre_y, :centre_z, :radius_rad)
ON CONFLICT (solution_id) DO NOTHING
RETURNING solution_id;

-- name: supersede(image_id, solution_id, why)!
-- All other solutions of its own of this image count no more.
UPDATE solutions SET superseded_by = :solution_id, superseded_why = :why
WHERE image_id = :image_id AND stack_id IS NULL AND superseded_by IS NULL AND solution_id <> :solution_id;

-- name: stack_state(stack_id)^
-- How far a stack has come, and what is asked to solve it.
SELECT state, request ->> 'astrometry_engine' AS engine FROM stacks WHERE stack_id = :stack_id;

-- name: members(stack_id)
-- Selected members of a stack in order: the image, its own solution at planning time, and the catalogue
-- that solution stands on (that of the measurement it names).
SELECT i.image_id, i.name, i.profile, i.filter, i.exposure_time_s, i.mjd_obs, i.airmass, i.ra_deg, i.dec_deg, i.header,
       i.header_zeropoint_mag, i.header_zeropoint_sigma_mag, i.header_zeropoint_nominal_mag, i.header_airmass_term_mag,
       i.header_colour_term, i.sky_absorption_mag, i.is_photometric,
       s.solution_id, s.header_path, s.zeropoint_mag, s.quality, s.corners,
       m.measurement_id, m.catalogue_path, m.metrics, m.per_ccd
FROM stack_members sm
JOIN images i USING (image_id)
LEFT JOIN solutions s ON s.solution_id = sm.solution_id
LEFT JOIN measurements m ON m.measurement_id = COALESCE(s.measurement_id, s.quality ->> 'measurement_id')
WHERE sm.stack_id = :stack_id AND sm.selected
ORDER BY sm.ordinal, i.image_id;

-- name: own_members(stack_id)
-- Selected members of a stack in order, each with the solution of its own that it was planned with.
SELECT i.image_id, i.name, s.solution_id, s.header_path, s.reference_name, s.reference_sha256, s.zeropoint_mag,
       s.flux_scale, s.quality, s.engine, s.context
FROM stack_members sm
JOIN images i USING (image_id)
LEFT JOIN solutions s ON s.solution_id = sm.solution_id
WHERE sm.stack_id = :stack_id AND sm.selected
ORDER BY sm.ordinal, i.image_id;

-- name: enter_own(stack_id, own_ids, new_ids)!
-- Own solutions are those of a stack, too, as they are: the same header, the same numbers, and from which they come.
INSERT INTO solutions (solution_id, image_id, stack_id, header_path, reference_name, reference_sha256, zeropoint_mag,
                       flux_scale, limiting_mag, quality, engine, measurement_id, context, model_version,
                       context_solutions, corners, centre_x, centre_y, centre_z, radius_rad)
SELECT n.new_id, s.image_id, :stack_id, s.header_path, s.reference_name, s.reference_sha256, s.zeropoint_mag,
       s.flux_scale, s.limiting_mag, s.quality || jsonb_build_object('joint', false, 'own_solution', s.solution_id),
       s.engine, s.measurement_id, s.context, s.model_version,
       s.context_solutions, s.corners, s.centre_x, s.centre_y, s.centre_z, s.radius_rad
FROM unnest(:own_ids::text[], :new_ids::text[]) AS n(own_id, new_id) JOIN solutions AS s ON s.solution_id = n.own_id
ON CONFLICT (solution_id) DO NOTHING;

-- name: mark_calibrated(stack_id)$
-- Take a planned stack one step further (or one that failed here and is tried again); gives its id back only when this step was new.
UPDATE stacks SET state = 'calibrated', result = result - 'failure', updated_at = now()
WHERE stack_id = :stack_id AND state IN ('planned', 'failed')
RETURNING stack_id;

-- name: products_at(paths)
-- The latest known content of these files.
SELECT DISTINCT ON (path) path, sha256, size_bytes, kind FROM products
WHERE path = ANY(:paths::text[])
ORDER BY path, product_id DESC;
