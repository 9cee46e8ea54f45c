-- Everything Spica remembers. Append-only where judgement is concerned: measurements and grades
-- are added, never overwritten.

CREATE TABLE images (
    image_id        text PRIMARY KEY,
    name            text NOT NULL,
    sha256          text NOT NULL,
    size_bytes      bigint NOT NULL,
    path            text NOT NULL,
    profile         text NOT NULL,
    instrument      text NOT NULL,
    run             text NOT NULL,
    filter          text NOT NULL,
    object          text,
    exposure_time_s double precision NOT NULL,
    mjd_obs         double precision,
    airmass         double precision,
    ra_deg          double precision NOT NULL,
    dec_deg         double precision NOT NULL,
    wcs             text NOT NULL CHECK (wcs IN ('full', 'pointing')),
    n_ccds          integer NOT NULL,
    batch           text,
    header          jsonb NOT NULL,
    repairs         jsonb NOT NULL DEFAULT '[]',
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX images_name ON images (name);
CREATE INDEX images_run_filter ON images (run, filter);
CREATE INDEX images_batch ON images (batch);

CREATE TABLE ccds (
    image_id  text NOT NULL REFERENCES images ON DELETE CASCADE,
    hdu       integer NOT NULL,
    name      text NOT NULL,
    naxis1    integer NOT NULL,
    naxis2    integer NOT NULL,
    header    jsonb NOT NULL,
    footprint double precision[],           -- ra, dec of the four corners, deg; null without WCS
    PRIMARY KEY (image_id, hdu)
);

CREATE TABLE rejections (
    rejection_id text PRIMARY KEY,          -- the id of the event that brought the file
    name         text NOT NULL,
    uri          text NOT NULL,
    sha256       text,
    set_aside    text,
    reasons      jsonb NOT NULL,
    batch        text,
    created_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE measurements (
    measurement_id text PRIMARY KEY,
    subject_kind   text NOT NULL CHECK (subject_kind IN ('image', 'stack')),
    subject_id     text NOT NULL,
    metrics        jsonb NOT NULL,          -- spica_proto Metrics
    per_ccd        jsonb NOT NULL DEFAULT '[]',
    catalogue_path text NOT NULL,
    weight_path    text NOT NULL,
    preview_path   text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX measurements_subject ON measurements (subject_kind, subject_id, created_at);

CREATE TABLE grades (
    grade_id       text PRIMARY KEY,        -- the id of the event that carries it
    subject_kind   text NOT NULL CHECK (subject_kind IN ('image', 'stack')),
    subject_id     text NOT NULL,
    grade          text NOT NULL CHECK (grade IN ('A', 'B', 'C', 'D')),
    graded_by      text NOT NULL,
    reasons        jsonb NOT NULL DEFAULT '[]',
    comment        text,
    measurement_id text REFERENCES measurements,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX grades_subject ON grades (subject_kind, subject_id, created_at);

CREATE TABLE stacks (
    stack_id     text PRIMARY KEY,
    request_id   text NOT NULL UNIQUE,
    name         text NOT NULL,
    filter       text NOT NULL,
    state        text NOT NULL CHECK (state IN ('planned', 'calibrated', 'coadded', 'done', 'exported', 'failed')),
    request      jsonb NOT NULL,
    requested_at timestamptz NOT NULL,      -- DATE cards of the product are taken from here
    grid         jsonb NOT NULL,
    combine      text NOT NULL,
    result       jsonb NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE solutions (
    solution_id    text PRIMARY KEY,
    image_id       text NOT NULL REFERENCES images,
    stack_id       text REFERENCES stacks,  -- null: solved by itself; else the joint solution of that stack
    header_path    text NOT NULL,
    reference_name text NOT NULL,
    reference_sha256 text NOT NULL,
    zeropoint_mag  double precision,        -- AB magnitude of 1 adu/s
    flux_scale     double precision,        -- to zero point 30, 1 s (FLXSCALE)
    limiting_mag   double precision,
    quality        jsonb NOT NULL,          -- residuals, matches, degree, geometry
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX solutions_image ON solutions (image_id, created_at);
CREATE INDEX solutions_stack ON solutions (stack_id);

CREATE TABLE stack_members (
    stack_id    text NOT NULL REFERENCES stacks ON DELETE CASCADE,
    image_id    text NOT NULL REFERENCES images,
    ordinal     integer,                    -- order among the selected; null where not selected
    selected    boolean NOT NULL,
    rule        text NOT NULL,              -- which rule said so
    found       text,                       -- the value that the rule looked at
    solution_id text REFERENCES solutions,  -- the image's own solution at planning time
    PRIMARY KEY (stack_id, image_id)
);

CREATE TABLE sources (
    stack_id    text NOT NULL REFERENCES stacks ON DELETE CASCADE,
    number      integer NOT NULL,
    ra_deg      double precision NOT NULL,
    dec_deg     double precision NOT NULL,
    mag_auto    real,
    magerr_auto real,
    fwhm_arcsec real,
    ellipticity real,
    flags       integer NOT NULL,
    PRIMARY KEY (stack_id, number)
);
CREATE INDEX sources_dec_ra ON sources (dec_deg, ra_deg);

CREATE TABLE products (
    product_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    path       text NOT NULL,
    sha256     text NOT NULL,
    size_bytes bigint NOT NULL,
    kind       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (path, sha256)
);

-- IVOA ProvenanceDM 1.0: activity, used, wasGeneratedBy.
CREATE TABLE activities (
    activity_id   text PRIMARY KEY,
    service       text NOT NULL,
    name          text NOT NULL,            -- the handler
    version       text NOT NULL,
    configuration jsonb NOT NULL,
    event_id      text,
    subject       text,
    about         text,                     -- image_id or stack_id
    started_at    timestamptz NOT NULL,
    ended_at      timestamptz NOT NULL,
    host          text NOT NULL,
    outcome       text NOT NULL,
    log           jsonb NOT NULL DEFAULT '[]'
);
CREATE INDEX activities_about ON activities (about);

CREATE TABLE used (
    activity_id text NOT NULL REFERENCES activities ON DELETE CASCADE,
    product_id  bigint NOT NULL REFERENCES products,
    role        text NOT NULL,
    PRIMARY KEY (activity_id, product_id, role)
);
CREATE INDEX used_product ON used (product_id);

CREATE TABLE was_generated_by (
    product_id  bigint NOT NULL REFERENCES products,
    activity_id text NOT NULL REFERENCES activities ON DELETE CASCADE,
    role        text NOT NULL,
    PRIMARY KEY (product_id, activity_id, role)
);
CREATE INDEX was_generated_by_activity ON was_generated_by (activity_id);

CREATE TABLE inbox (
    service    text NOT NULL,
    event_id   text NOT NULL,
    subject    text NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service, event_id)
);

-- Begun without failing or finishing means the worker died: a message that kills its worker shows here.
-- Unlogged, since a count that a crash of the server forgets does no harm, and every message would wait for the disk.
CREATE UNLOGGED TABLE attempts (
    service  text NOT NULL,
    event_id text NOT NULL,
    begun    integer NOT NULL DEFAULT 0,
    failed   integer NOT NULL DEFAULT 0,
    PRIMARY KEY (service, event_id)
);

CREATE TABLE outbox (
    outbox_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id text NOT NULL UNIQUE,        -- Nats-Msg-Id: the event's id, or id/again/N for a resent dead letter
    subject    text NOT NULL,
    headers    jsonb NOT NULL,
    body       text NOT NULL,               -- text, not jsonb: sent again byte for byte
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at    timestamptz,
    refused    text                         -- why the bus will never take it; null for all but broken ones
);
CREATE INDEX outbox_unsent ON outbox (outbox_id) WHERE sent_at IS NULL AND refused IS NULL;

CREATE TABLE dead_letters (
    dead_letter_id text PRIMARY KEY,
    service        text NOT NULL,
    event_id       text NOT NULL,
    subject        text NOT NULL,
    headers        jsonb NOT NULL,
    body           text NOT NULL,
    code           text NOT NULL,
    message        text NOT NULL,
    numbers        jsonb NOT NULL DEFAULT '{}',
    attempts       integer NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    sent_again_at  timestamptz
);
CREATE INDEX dead_letters_waiting ON dead_letters (created_at) WHERE sent_again_at IS NULL;

CREATE TABLE bookmarks (
    name       text PRIMARY KEY,
    value      jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- What the folder watcher has announced already, so that a restart neither misses nor repeats.
CREATE TABLE folder_ledger (
    path       text NOT NULL,
    size_bytes bigint NOT NULL,
    mtime_ns   bigint NOT NULL,
    event_id   text NOT NULL,
    seen_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (path, size_bytes, mtime_ns)
);

CREATE TABLE selections (
    name       text PRIMARY KEY,
    selection  jsonb NOT NULL,
    created_by text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE surveys (
    name       text PRIMARY KEY,
    request    jsonb NOT NULL,
    active     boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE nodes (
    node_id    text PRIMARY KEY,
    host       text NOT NULL,
    data_root  text NOT NULL,
    free_bytes bigint NOT NULL,
    cores      integer NOT NULL,
    seen_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE placements (
    run     text NOT NULL,
    filter  text NOT NULL,
    node_id text NOT NULL REFERENCES nodes,
    placed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run, filter)
);
