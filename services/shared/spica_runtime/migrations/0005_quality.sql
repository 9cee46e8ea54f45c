-- Every file that a measurement made, by kind; all that it found, flat; and what each policy says of it.

ALTER TABLE measurements
    ADD COLUMN products jsonb NOT NULL DEFAULT '{}',    -- kind -> path
    ADD COLUMN figures  jsonb NOT NULL DEFAULT '{}';    -- of the whole, by name: what policies judge, now and later

-- Added, never overwritten: the same measurement may be judged again, by another version or against a run that went on.
-- The latest of a policy's name counts.
CREATE TABLE verdicts (
    verdict_id     text PRIMARY KEY,            -- from the event, or the judging again, that brought it
    measurement_id text NOT NULL REFERENCES measurements ON DELETE CASCADE,
    policy         text NOT NULL,               -- name@version
    use            text NOT NULL,
    grade          text NOT NULL CHECK (grade IN ('A', 'B', 'C', 'D')),
    reasons        jsonb NOT NULL DEFAULT '[]',
    ccds_out       text[] NOT NULL DEFAULT '{}',
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX verdicts_measurement ON verdicts (measurement_id, created_at);
