-- Every file that a measurement made, by kind; and what each policy says of it.

ALTER TABLE measurements ADD COLUMN products jsonb NOT NULL DEFAULT '{}';    -- kind -> path

CREATE TABLE verdicts (
    measurement_id text NOT NULL REFERENCES measurements ON DELETE CASCADE,
    policy         text NOT NULL,               -- name@version
    use            text NOT NULL,
    grade          text NOT NULL CHECK (grade IN ('A', 'B', 'C', 'D')),
    reasons        jsonb NOT NULL DEFAULT '[]',
    ccds_out       text[] NOT NULL DEFAULT '{}',
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (measurement_id, policy)
);
