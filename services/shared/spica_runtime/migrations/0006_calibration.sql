-- Versions of solutions, where they put the sky, and what runs teach of their instruments.

ALTER TABLE solutions
    ADD COLUMN version           integer,           -- of the image's own ones, from 1; null: a joint one
    ADD COLUMN superseded_by     text REFERENCES solutions,  -- the image's own one that counts instead; null: this one
    ADD COLUMN superseded_why    text,
    ADD COLUMN engine            text NOT NULL DEFAULT 'spica' CHECK (engine IN ('spica', 'scamp')),
    ADD COLUMN measurement_id    text REFERENCES measurements,
    ADD COLUMN context           text,              -- of its instrument; null: solved before there were any
    ADD COLUMN model_version     integer,           -- of the context's model that it started from; 0: none
    ADD COLUMN context_solutions text[] NOT NULL DEFAULT '{}',  -- of other images that took part, held as they were
    ADD COLUMN corners           double precision[],  -- ra, dec (deg) of four corners of every CCD, in the order of HDUs
    ADD COLUMN centre_x          double precision,  -- direction of its middle, and how far it reaches from there
    ADD COLUMN centre_y          double precision,
    ADD COLUMN centre_z          double precision,
    ADD COLUMN radius_rad        double precision;

UPDATE solutions SET measurement_id = m.measurement_id
FROM measurements AS m WHERE m.measurement_id = solutions.quality ->> 'measurement_id';

UPDATE solutions AS s SET version = n.version, superseded_by = n.next, superseded_why = n.why
FROM (SELECT solution_id,
             row_number() OVER versions AS version,
             lead(solution_id) OVER versions AS next,
             CASE WHEN lead(solution_id) OVER versions IS NOT NULL THEN 'solved again' END AS why
      FROM solutions WHERE stack_id IS NULL
      WINDOW versions AS (PARTITION BY image_id ORDER BY created_at, solution_id)) AS n
WHERE n.solution_id = s.solution_id;

CREATE UNIQUE INDEX solutions_version ON solutions (image_id, version) WHERE stack_id IS NULL;
CREATE INDEX solutions_context ON solutions (context) WHERE stack_id IS NULL AND superseded_by IS NULL;

-- Added, never overwritten: the highest version of a context is what new images start from.
CREATE TABLE instrument_models (
    context     text NOT NULL,
    version     integer NOT NULL,
    model       jsonb NOT NULL,                     -- spica_calib InstrumentModel
    illumination jsonb,                             -- spica_calib Illumination
    n_exposures integer NOT NULL,
    repeat_mas  double precision,                   -- how well it holds from one exposure to the next, per axis
    started_from integer NOT NULL,                  -- the version that the solution started from; 0: none
    merged_with integer,                            -- a version that came between, and was taken in
    solution_id text NOT NULL REFERENCES solutions, -- the solution that taught it
    image_id    text NOT NULL REFERENCES images,    -- and its image
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (context, version)
);
CREATE INDEX instrument_models_solution ON instrument_models (solution_id);
