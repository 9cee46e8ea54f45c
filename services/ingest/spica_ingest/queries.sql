-- What the ingest service writes. What an image is stands once it is here; which version of a file counts may change.

-- name: insert_image(image_id, name, sha256, size_bytes, path, profile, instrument, run, filter, object, exposure_time_s, mjd_obs, airmass, ra_deg, dec_deg, wcs, n_ccds, batch, header, repairs, uri, modified_at, primary_header, footprint, corners, centre_x, centre_y, centre_z, radius_rad, reach_east, reach_north, canonical_filter, mjd_end, seeing_arcsec, sky_absorption_mag, background_adu_per_s, agency_run, queue_run, camera_run, sequence_number, observation_type, principal_investigator, released_at, is_photometric, queue_grade, header_zeropoint_mag, header_zeropoint_sigma_mag, header_zeropoint_nominal_mag, header_airmass_term_mag, header_colour_term, columns_version)$
-- Its number, if this image was not here before; else nothing. Nobody was told of it yet.
INSERT INTO images (
    image_id, name, sha256, size_bytes, path, profile, instrument, run, filter, object, exposure_time_s, mjd_obs,
    airmass, ra_deg, dec_deg, wcs, n_ccds, batch, header, repairs, uri, modified_at, primary_header, footprint,
    corners, centre_x, centre_y, centre_z, radius_rad, reach_east, reach_north, canonical_filter, mjd_end,
    seeing_arcsec, sky_absorption_mag, background_adu_per_s, agency_run, queue_run, camera_run, sequence_number,
    observation_type, principal_investigator, released_at, is_photometric, queue_grade, header_zeropoint_mag,
    header_zeropoint_sigma_mag, header_zeropoint_nominal_mag, header_airmass_term_mag, header_colour_term,
    columns_version, announced)
VALUES (
    :image_id, :name, :sha256, :size_bytes, :path, :profile, :instrument, :run, :filter, :object, :exposure_time_s,
    :mjd_obs, :airmass, :ra_deg, :dec_deg, :wcs, :n_ccds, :batch, :header, :repairs, :uri, :modified_at,
    :primary_header, :footprint, :corners, :centre_x, :centre_y, :centre_z, :radius_rad, :reach_east, :reach_north,
    :canonical_filter, :mjd_end, :seeing_arcsec, :sky_absorption_mag, :background_adu_per_s, :agency_run, :queue_run,
    :camera_run, :sequence_number, :observation_type, :principal_investigator, :released_at, :is_photometric,
    :queue_grade, :header_zeropoint_mag, :header_zeropoint_sigma_mag, :header_zeropoint_nominal_mag,
    :header_airmass_term_mag, :header_colour_term, :columns_version, false)
ON CONFLICT (image_id) DO NOTHING
RETURNING number;

-- name: fill_columns(number, repairs, footprint, corners, centre_x, centre_y, centre_z, radius_rad, reach_east, reach_north, canonical_filter, mjd_end, seeing_arcsec, sky_absorption_mag, background_adu_per_s, agency_run, queue_run, camera_run, sequence_number, observation_type, principal_investigator, released_at, is_photometric, queue_grade, header_zeropoint_mag, header_zeropoint_sigma_mag, header_zeropoint_nominal_mag, header_airmass_term_mag, header_colour_term, columns_version)!
-- The same columns of an image that was verified by earlier code.
UPDATE images SET
    repairs = :repairs,
    footprint = :footprint, corners = :corners, centre_x = :centre_x, centre_y = :centre_y, centre_z = :centre_z,
    radius_rad = :radius_rad, reach_east = :reach_east, reach_north = :reach_north,
    canonical_filter = :canonical_filter, mjd_end = :mjd_end, seeing_arcsec = :seeing_arcsec,
    sky_absorption_mag = :sky_absorption_mag, background_adu_per_s = :background_adu_per_s, agency_run = :agency_run,
    queue_run = :queue_run, camera_run = :camera_run, sequence_number = :sequence_number,
    observation_type = :observation_type, principal_investigator = :principal_investigator,
    released_at = :released_at, is_photometric = :is_photometric, queue_grade = :queue_grade,
    header_zeropoint_mag = :header_zeropoint_mag, header_zeropoint_sigma_mag = :header_zeropoint_sigma_mag,
    header_zeropoint_nominal_mag = :header_zeropoint_nominal_mag, header_airmass_term_mag = :header_airmass_term_mag,
    header_colour_term = :header_colour_term, columns_version = :columns_version
WHERE number = :number;

-- name: insert_cells(cells, mjd_obs, number)!
INSERT INTO sky_cells (cell, mjd_obs, number)
SELECT cell, coalesce(:mjd_obs::double precision, '-infinity'), :number FROM unnest(:cells::bigint[]) AS cell
ON CONFLICT DO NOTHING;

-- name: old_columns(version, max_rows)
-- Images whose columns earlier code filled, or none; other replicas take others.
SELECT number, image_id, profile, filter, header, repairs, ra_deg, dec_deg, mjd_obs,
       (SELECT jsonb_agg(footprint ORDER BY hdu) FROM ccds WHERE ccds.image_id = images.image_id) AS footprints,
       (SELECT jsonb_agg(jsonb_build_array(naxis2, naxis1) ORDER BY hdu) FROM ccds
        WHERE ccds.image_id = images.image_id) AS shapes
FROM images WHERE columns_version < :version
ORDER BY number LIMIT :max_rows FOR UPDATE SKIP LOCKED;

-- name: insert_ccds(image_id, hdu, name, naxis1, naxis2, header, footprint)*!
INSERT INTO ccds (image_id, hdu, name, naxis1, naxis2, header, footprint)
VALUES (:image_id, :hdu, :name, :naxis1, :naxis2, :header, :footprint);

-- name: lock_uri(uri)$
-- Versions of one archive file are settled one at a time, whichever replicas verify them.
SELECT pg_advisory_xact_lock(hashtextextended('version of ' || :uri, 0));

-- name: name_version(image_id, uri, modified_at)!
-- The same content again: now known to be what the archive calls so, or since when.
UPDATE images SET uri = :uri, modified_at = greatest(modified_at, :modified_at::timestamptz)
WHERE image_id = :image_id AND (uri IS NULL OR uri = :uri);

-- name: versions(uri)
-- All contents that an archive file had, the one that counts last: changed last, then come last.
SELECT image_id, superseded_by, announced FROM images
WHERE uri = :uri ORDER BY modified_at NULLS FIRST, number;

-- name: supersede(uri, image_id)!
-- Make this version the one that counts.
UPDATE images SET superseded_by = nullif(:image_id, image_id)
WHERE uri = :uri AND superseded_by IS DISTINCT FROM nullif(:image_id, image_id);

-- name: set_announced(image_id)$
-- The id, if nobody was told of this image before.
UPDATE images SET announced = true WHERE image_id = :image_id AND NOT announced RETURNING image_id;

-- name: insert_auxiliary(kind, name, state, keyword, image_id, uris)$
-- The state, if no header named this calibration frame before.
INSERT INTO auxiliaries (kind, name, state, keyword, image_id, uris, asked_at)
VALUES (:kind, :name, :state, :keyword, :image_id, :uris, CASE WHEN :state = 'wanted' THEN now() END)
ON CONFLICT (kind, name) DO NOTHING
RETURNING state;

-- name: want_auxiliary(kind, name, keyword, image_id, uris, again_after)$
-- The state, if this frame was named but never asked for, or was not to be had when it was last tried, long ago.
UPDATE auxiliaries
SET state = 'wanted', keyword = :keyword, image_id = :image_id, uris = :uris, asked_at = now()
WHERE kind = :kind AND name = :name
  AND (state = 'named' OR (state IN ('missing', 'rejected') AND tried_at < now() - :again_after::interval))
RETURNING state;

-- name: insert_image_auxiliary(image_id, kind, name)!
INSERT INTO image_auxiliaries (image_id, kind, name) VALUES (:image_id, :kind, :name) ON CONFLICT DO NOTHING;

-- name: auxiliary(kind, name)^
-- A calibration frame, and whether the image that asked for it came from an archive.
SELECT a.state, a.path, a.sha256, a.size_bytes, i.uri IS NOT NULL AS from_archive
FROM auxiliaries AS a JOIN images AS i USING (image_id) WHERE a.kind = :kind AND a.name = :name;

-- name: set_auxiliary(kind, name, state, uri, path, sha256, size_bytes, reasons)!
-- What came of looking for it. One that is here stays.
UPDATE auxiliaries
SET state = :state, uri = :uri, path = :path, sha256 = :sha256, size_bytes = :size_bytes, reasons = :reasons,
    tried_at = now()
WHERE kind = :kind AND name = :name AND state <> 'here';

-- name: insert_rejection(rejection_id, name, uri, sha256, set_aside, reasons, batch)!
-- One row per arrival; the same event again changes nothing.
INSERT INTO rejections (rejection_id, name, uri, sha256, set_aside, reasons, batch)
VALUES (:rejection_id, :name, :uri, :sha256, :set_aside, :reasons, :batch)
ON CONFLICT (rejection_id) DO NOTHING;

-- name: known_files(prefix, url)
-- What was announced already of the files below a folder; names that are not UTF-8 stand there as URLs.
SELECT path, size_bytes, mtime_ns FROM folder_ledger WHERE starts_with(path, :prefix) OR starts_with(path, :url);

-- name: insert_seen(path, size_bytes, mtime_ns, event_id)$
-- The event's id, if this file, as it is now, was not announced before; else nothing.
INSERT INTO folder_ledger (path, size_bytes, mtime_ns, event_id)
VALUES (:path, :size_bytes, :mtime_ns, :event_id)
ON CONFLICT (path, size_bytes, mtime_ns) DO NOTHING
RETURNING event_id;
