-- Images by place, time and rules, the newest first. Each search gives a page of candidates: `before` is the last of the
-- page before. Times that are not known count as -infinity. What a candidate really covers is looked at afterwards.

-- name: sky_orders()
-- Orders of cells by which any image is stored.
SELECT o AS cell_order FROM generate_series(0, 12) AS o
WHERE EXISTS (SELECT 1 FROM sky_cells WHERE cell >= 4::bigint << (2 * o) AND cell < 4::bigint << (2 * o + 2));

-- name: by_place(cells, firsts, lasts, x, y, z, reach, chord, since, until, filters, run, name, seeing_max, airmass_max, all_versions, before_mjd, before_number, max_hits, max_rows)
-- The newest images stored by one of these cells, or in one of these ranges of cells, whose surrounding circle and
-- rectangle come near enough and that the rules let pass. Of `max_hits` in the cells the last one is given in any case,
-- with a null `radius_rad` if it does not pass, so that one knows where to go on; `hits` tells how many there were.
-- (A limit that is never reached keeps PostgreSQL from starting parallel workers, which takes longer than all the rest.)
SELECT h.number, h.mjd_obs, h.hits, i.corners, i.centre_x, i.centre_y, i.centre_z, i.radius_rad
FROM (
    SELECT u.mjd_obs, u.number, count(*) OVER () AS hits,
           row_number() OVER (ORDER BY u.mjd_obs DESC, u.number DESC) AS place
    FROM (
        SELECT t.mjd_obs, t.number
        FROM (
            SELECT c.mjd_obs, c.number
            FROM unnest(:cells::bigint[]) AS u(cell)
            CROSS JOIN LATERAL (
                SELECT mjd_obs, number FROM sky_cells
                WHERE cell = u.cell AND mjd_obs >= :since AND mjd_obs < :until
                  AND (mjd_obs, number) < (:before_mjd::double precision, :before_number::bigint)
                ORDER BY mjd_obs DESC, number DESC
                LIMIT :max_hits
            ) AS c
            UNION ALL
            (SELECT c.mjd_obs, c.number
             FROM unnest(:firsts::bigint[], :lasts::bigint[]) AS r(first, last)
             JOIN sky_cells AS c ON c.cell BETWEEN r.first AND r.last AND c.mjd_obs >= :since AND c.mjd_obs < :until
             WHERE (c.mjd_obs, c.number) < (:before_mjd, :before_number)
             LIMIT 9000000000000000000)
        ) AS t
        GROUP BY t.mjd_obs, t.number
        ORDER BY t.mjd_obs DESC, t.number DESC
        LIMIT :max_hits
    ) AS u
) AS h
LEFT JOIN LATERAL (
    SELECT corners, centre_x, centre_y, centre_z, radius_rad
    FROM images
    WHERE number = h.number
      AND centre_x * :x + centre_y * :y + centre_z * :z >= cos(least(radius_rad + :reach, pi()))
      AND abs(centre_x * :y - centre_y * :x) <= (reach_east + :chord) * sqrt(centre_x ^ 2 + centre_y ^ 2)
      AND abs((centre_x ^ 2 + centre_y ^ 2) * :z - centre_z * (centre_x * :x + centre_y * :y))
          <= (reach_north + :chord) * sqrt(centre_x ^ 2 + centre_y ^ 2)
      AND (:filters::text[] IS NULL OR canonical_filter = ANY(:filters))
      AND (:run::text IS NULL OR run = :run)
      AND (:name::text IS NULL OR name = :name)
      AND (:seeing_max::double precision IS NULL OR seeing_arcsec <= :seeing_max)
      AND (:airmass_max::double precision IS NULL OR airmass <= :airmass_max)
      AND (:all_versions OR superseded_by IS NULL)
    OFFSET 0
) AS i ON true
WHERE i.radius_rad IS NOT NULL OR h.place = h.hits
ORDER BY h.mjd_obs DESC, h.number DESC
LIMIT :max_rows;

-- name: by_name(name, since, until, filters, run, seeing_max, airmass_max, all_versions, before_mjd, before_number, max_rows)
SELECT number, coalesce(mjd_obs, '-infinity') AS mjd_obs FROM images
WHERE name = :name
  AND coalesce(mjd_obs, '-infinity') >= :since AND coalesce(mjd_obs, '-infinity') < :until
  AND (coalesce(mjd_obs, '-infinity'), number) < (:before_mjd::double precision, :before_number::bigint)
  AND (:filters::text[] IS NULL OR canonical_filter = ANY(:filters))
  AND (:run::text IS NULL OR run = :run)
  AND (:seeing_max::double precision IS NULL OR seeing_arcsec <= :seeing_max)
  AND (:airmass_max::double precision IS NULL OR airmass <= :airmass_max)
  AND (:all_versions OR superseded_by IS NULL)
ORDER BY coalesce(mjd_obs, '-infinity') DESC, number DESC
LIMIT :max_rows;

-- name: by_run(run, since, until, seeing_max, airmass_max, all_versions, before_mjd, before_number, max_rows)
SELECT number, coalesce(mjd_obs, '-infinity') AS mjd_obs FROM images
WHERE run = :run
  AND coalesce(mjd_obs, '-infinity') >= :since AND coalesce(mjd_obs, '-infinity') < :until
  AND (coalesce(mjd_obs, '-infinity'), number) < (:before_mjd::double precision, :before_number::bigint)
  AND (:seeing_max::double precision IS NULL OR seeing_arcsec <= :seeing_max)
  AND (:airmass_max::double precision IS NULL OR airmass <= :airmass_max)
  AND (:all_versions OR superseded_by IS NULL)
ORDER BY coalesce(mjd_obs, '-infinity') DESC, number DESC
LIMIT :max_rows;

-- name: by_run_and_filter(run, filters, since, until, seeing_max, airmass_max, all_versions, before_mjd, before_number, max_rows)
SELECT i.number, i.mjd_obs
FROM unnest(:filters::text[]) AS f(filter)
CROSS JOIN LATERAL (
    SELECT number, coalesce(mjd_obs, '-infinity') AS mjd_obs FROM images
    WHERE run = :run AND canonical_filter = f.filter
      AND coalesce(mjd_obs, '-infinity') >= :since AND coalesce(mjd_obs, '-infinity') < :until
      AND (coalesce(mjd_obs, '-infinity'), number) < (:before_mjd::double precision, :before_number::bigint)
      AND (:seeing_max::double precision IS NULL OR seeing_arcsec <= :seeing_max)
      AND (:airmass_max::double precision IS NULL OR airmass <= :airmass_max)
      AND (:all_versions OR superseded_by IS NULL)
    ORDER BY coalesce(mjd_obs, '-infinity') DESC, number DESC
    LIMIT :max_rows
) AS i
ORDER BY i.mjd_obs DESC, i.number DESC
LIMIT :max_rows;

-- name: by_filter(filters, since, until, seeing_max, airmass_max, all_versions, before_mjd, before_number, max_rows)
SELECT i.number, i.mjd_obs
FROM unnest(:filters::text[]) AS f(filter)
CROSS JOIN LATERAL (
    SELECT number, coalesce(mjd_obs, '-infinity') AS mjd_obs FROM images
    WHERE canonical_filter = f.filter
      AND coalesce(mjd_obs, '-infinity') >= :since AND coalesce(mjd_obs, '-infinity') < :until
      AND (coalesce(mjd_obs, '-infinity'), number) < (:before_mjd::double precision, :before_number::bigint)
      AND (:seeing_max::double precision IS NULL OR seeing_arcsec <= :seeing_max)
      AND (:airmass_max::double precision IS NULL OR airmass <= :airmass_max)
      AND (:all_versions OR superseded_by IS NULL)
    ORDER BY coalesce(mjd_obs, '-infinity') DESC, number DESC
    LIMIT :max_rows
) AS i
ORDER BY i.mjd_obs DESC, i.number DESC
LIMIT :max_rows;

-- name: by_time(since, until, seeing_max, airmass_max, all_versions, before_mjd, before_number, max_rows)
SELECT number, coalesce(mjd_obs, '-infinity') AS mjd_obs FROM images
WHERE coalesce(mjd_obs, '-infinity') >= :since AND coalesce(mjd_obs, '-infinity') < :until
  AND (coalesce(mjd_obs, '-infinity'), number) < (:before_mjd::double precision, :before_number::bigint)
  AND (:seeing_max::double precision IS NULL OR seeing_arcsec <= :seeing_max)
  AND (:airmass_max::double precision IS NULL OR airmass <= :airmass_max)
  AND (:all_versions OR superseded_by IS NULL)
ORDER BY coalesce(mjd_obs, '-infinity') DESC, number DESC
LIMIT :max_rows;

-- name: found(numbers)
-- What is told of the images found, with the grade and the FWHM that hold now, in the order asked for.
SELECT i.image_id, i.name, i.path, i.instrument, i.run, i.filter, i.canonical_filter, i.object, i.exposure_time_s,
       i.mjd_obs, i.mjd_end, i.airmass, i.ra_deg, i.dec_deg, i.wcs, i.n_ccds, i.batch, i.seeing_arcsec,
       i.sky_absorption_mag, i.agency_run, i.queue_run, i.camera_run, i.observation_type, i.released_at, i.uri,
       i.superseded_by, i.footprint, i.sha256, i.size_bytes, g.grade,
       (m.metrics ->> 'fwhm_arcsec')::double precision AS fwhm_arcsec
FROM unnest(:numbers::bigint[]) WITH ORDINALITY AS n(number, place)
JOIN images AS i ON i.number = n.number
LEFT JOIN LATERAL (
    SELECT grade FROM grades
    WHERE subject_kind = 'image' AND subject_id = i.image_id
    ORDER BY (graded_by LIKE 'person:%') DESC, created_at DESC, grade_id DESC LIMIT 1) AS g ON true
LEFT JOIN LATERAL (
    SELECT metrics FROM measurements
    WHERE subject_kind = 'image' AND subject_id = i.image_id
    ORDER BY created_at DESC, measurement_id DESC LIMIT 1) AS m ON true
ORDER BY n.place;
