-- What rules select on, as columns, and the sky index. Null: the header does not tell, or tells nonsense.

ALTER TABLE images
    ADD COLUMN number                 bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    ADD COLUMN uri                    text,             -- what the archive calls it, null: it came as a file
    ADD COLUMN modified_at            timestamptz,      -- when the archive last changed what that uri names
    ADD COLUMN superseded_by          text REFERENCES images,  -- the version that counts now
    ADD COLUMN announced              boolean NOT NULL DEFAULT true,  -- whether image.verified was ever said of it
    ADD COLUMN primary_header         jsonb,            -- as it stands in HDU 0, null: verified before this was kept
    ADD COLUMN canonical_filter       text,
    ADD COLUMN mjd_end                double precision,
    ADD COLUMN seeing_arcsec          double precision, -- as estimated at the telescope, not measured here
    ADD COLUMN sky_absorption_mag     double precision, -- by clouds (SkyProbe)
    ADD COLUMN background_adu_per_s   double precision, -- per pixel
    ADD COLUMN agency_run             text,
    ADD COLUMN queue_run              text,
    ADD COLUMN camera_run             text,
    ADD COLUMN sequence_number        bigint,           -- odometer
    ADD COLUMN observation_type       text,
    ADD COLUMN principal_investigator text,
    ADD COLUMN released_at            timestamptz,      -- when it is public
    ADD COLUMN is_photometric         boolean,
    ADD COLUMN queue_grade            integer,          -- 1 (good) to 5 (unusable)
    ADD COLUMN header_zeropoint_mag         double precision,  -- of 1 adu/s
    ADD COLUMN header_zeropoint_sigma_mag   double precision,
    ADD COLUMN header_zeropoint_nominal_mag double precision,
    ADD COLUMN header_airmass_term_mag      double precision,  -- per unit of airmass
    ADD COLUMN header_colour_term           double precision,  -- mag per mag
    ADD COLUMN footprint              double precision[],  -- ra, dec of the corners of the outline of all CCDs, deg
    ADD COLUMN corners                bytea,            -- ra, dec of all corners of all CCDs, mas, int32, for search
    ADD COLUMN centre_x               double precision, -- direction of the middle, and how far it reaches from there
    ADD COLUMN centre_y               double precision,
    ADD COLUMN centre_z               double precision,
    ADD COLUMN radius_rad             double precision,
    ADD COLUMN reach_east             double precision, -- sine of how far it reaches east or west of its middle
    ADD COLUMN reach_north            double precision, -- and north or south
    ADD COLUMN columns_version        integer NOT NULL DEFAULT 0;  -- of the code that filled these, 0: not yet

-- Noise to any compression, and read at every search.
ALTER TABLE images ALTER COLUMN corners SET STORAGE EXTERNAL;

-- Times that are not known sort before all others.
CREATE INDEX images_time ON images ((coalesce(mjd_obs, '-infinity')), number);
CREATE INDEX images_filter_time ON images (canonical_filter, (coalesce(mjd_obs, '-infinity')), number);
CREATE INDEX images_run_time ON images (run, (coalesce(mjd_obs, '-infinity')), number);
CREATE INDEX images_run_filter_time ON images (run, canonical_filter, (coalesce(mjd_obs, '-infinity')), number);
CREATE INDEX images_uri ON images (uri) WHERE uri IS NOT NULL;
CREATE INDEX images_old_columns ON images (columns_version, number);

-- Cells of the sky (HEALPix, MOC uniq numbers) that an image touches, by time: the key is the index.
CREATE TABLE sky_cells (
    cell    bigint NOT NULL,
    mjd_obs double precision NOT NULL,                  -- -infinity: not known
    number  bigint NOT NULL,                            -- of the image
    PRIMARY KEY (cell, mjd_obs, number)
);

-- Calibration frames that headers name: each is fetched once, whoever names it.
CREATE TABLE auxiliaries (
    kind       text NOT NULL CHECK (kind IN ('flat', 'mask')),
    name       text NOT NULL,
    state      text NOT NULL CHECK (state IN ('named', 'wanted', 'here', 'missing', 'rejected')),
    keyword    text NOT NULL,
    image_id   text NOT NULL REFERENCES images,         -- the image that asked for it
    uris       text[] NOT NULL,
    uri        text,                                    -- where it came from
    path       text,
    sha256     text,
    size_bytes bigint,
    reasons    jsonb NOT NULL DEFAULT '[]',
    asked_at   timestamptz,
    tried_at   timestamptz,
    PRIMARY KEY (kind, name)
);

CREATE TABLE image_auxiliaries (
    image_id text NOT NULL REFERENCES images ON DELETE CASCADE,
    kind     text NOT NULL,
    name     text NOT NULL,
    PRIMARY KEY (image_id, kind),
    FOREIGN KEY (kind, name) REFERENCES auxiliaries
);
CREATE INDEX image_auxiliaries_name ON image_auxiliaries (kind, name);
