-- name: image(image_id)^
-- What calibration must know of an image.
SELECT image_id, name, profile, filter, exposure_time_s, mjd_obs, ra_deg, dec_deg, wcs, batch
FROM images WHERE image_id = :image_id;

-- name: ccds(image_id)
-- CCDs of an image in the order of its HDUs.
SELECT name, naxis1, naxis2 FROM ccds WHERE image_id = :image_id ORDER BY hdu;

-- name: per_ccd(measurement_id)$
-- What was measured on each CCD.
SELECT per_ccd FROM measurements WHERE measurement_id = :measurement_id;

-- name: solution_exists(solution_id)$
-- Whether this solution was found before.
SELECT EXISTS (SELECT 1 FROM solutions WHERE solution_id = :solution_id);

-- name: add_solution(solution_id, image_id, stack_id, header_path, reference_name, reference_sha256, zeropoint_mag, flux_scale, limiting_mag, quality)$
-- Keep a solution; gives its id back only when it is new.
INSERT INTO solutions (solution_id, image_id, stack_id, header_path, reference_name, reference_sha256,
                       zeropoint_mag, flux_scale, limiting_mag, quality)
VALUES (:solution_id, :image_id, :stack_id, :header_path, :reference_name, :reference_sha256,
        :zeropoint_mag, :flux_scale, :limiting_mag, :quality)
ON CONFLICT (solution_id) DO NOTHING
RETURNING solution_id;

-- name: stack_state(stack_id)$
-- How far a stack has come.
SELECT state FROM stacks WHERE stack_id = :stack_id;

-- name: members(stack_id)
-- Selected members of a stack in order: the image, its own solution at planning time, and the catalogue
-- that solution stands on (that of the measurement it names).
SELECT i.image_id, i.name, i.profile, i.filter, i.exposure_time_s, i.mjd_obs, i.header,
       s.solution_id, s.header_path, s.zeropoint_mag, s.quality,
       m.catalogue_path, m.metrics, m.per_ccd
FROM stack_members sm
JOIN images i USING (image_id)
LEFT JOIN solutions s ON s.solution_id = sm.solution_id
LEFT JOIN measurements m ON m.measurement_id = s.quality ->> 'measurement_id'
WHERE sm.stack_id = :stack_id AND sm.selected
ORDER BY sm.ordinal, i.image_id;

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
