-- What the ingest service writes. It never updates: an image stands once it is here.

-- name: insert_image(image_id, name, sha256, size_bytes, path, profile, instrument, run, filter, object, exposure_time_s, mjd_obs, airmass, ra_deg, dec_deg, wcs, n_ccds, batch, header, repairs)$
-- The id, if this image was not here before; else nothing.
INSERT INTO images (
    image_id, name, sha256, size_bytes, path, profile, instrument, run, filter, object, exposure_time_s,
    mjd_obs, airmass, ra_deg, dec_deg, wcs, n_ccds, batch, header, repairs)
VALUES (
    :image_id, :name, :sha256, :size_bytes, :path, :profile, :instrument, :run, :filter, :object,
    :exposure_time_s, :mjd_obs, :airmass, :ra_deg, :dec_deg, :wcs, :n_ccds, :batch, :header, :repairs)
ON CONFLICT (image_id) DO NOTHING
RETURNING image_id;

-- name: insert_ccds(image_id, hdu, name, naxis1, naxis2, header, footprint)*!
INSERT INTO ccds (image_id, hdu, name, naxis1, naxis2, header, footprint)
VALUES (:image_id, :hdu, :name, :naxis1, :naxis2, :header, :footprint);

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
