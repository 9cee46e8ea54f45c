-- Stacks made in parts, standing surveys, what people tag.

ALTER TABLE stacks
    ADD COLUMN plan          jsonb NOT NULL DEFAULT '{}',   -- the rest of what was planned: how pixels are made, solutions, engine
    ADD COLUMN survey        text,                          -- the standing survey that asked for it
    ADD COLUMN extends       text REFERENCES stacks,        -- on whose sums it goes on
    ADD COLUMN replaces      text REFERENCES stacks,        -- which it makes anew
    ADD COLUMN stale_since   timestamptz,                   -- null: it would come out the same today
    ADD COLUMN stale_reasons jsonb NOT NULL DEFAULT '[]';
CREATE INDEX stacks_survey ON stacks (survey, created_at) WHERE survey IS NOT NULL;
CREATE INDEX stacks_replaces ON stacks (replaces) WHERE replaces IS NOT NULL;
CREATE INDEX stack_members_image ON stack_members (image_id) WHERE selected;

-- Units of the work on a stack. What is done is not done again, whoever is killed.
CREATE TABLE stack_parts (
    stack_id   text NOT NULL REFERENCES stacks ON DELETE CASCADE,
    step       text NOT NULL CHECK (step IN ('prepare', 'tile', 'assemble')),
    number     integer NOT NULL,
    done_at    timestamptz,                                 -- null: wanted
    path       text,                                        -- its file, relative to the data folder
    sha256     text,
    numbers    jsonb NOT NULL DEFAULT '{}',                 -- what was found
    host       text,                                        -- who did it
    elapsed_s  double precision,
    PRIMARY KEY (stack_id, step, number)
);

ALTER TABLE surveys
    ADD COLUMN created_by        text,
    ADD COLUMN debounce_s        double precision NOT NULL DEFAULT 300,   -- quiet for so long before it asks
    ADD COLUMN rebuild_stale     boolean NOT NULL DEFAULT true,  -- also when a member's grade or solution changed
    ADD COLUMN members           text[] NOT NULL DEFAULT '{}',   -- image_id/solution_id of what it asked for last
    ADD COLUMN due_at            timestamptz,                    -- null: nothing changed since
    ADD COLUMN changed_since     timestamptz,                    -- of the first change not asked for yet
    ADD COLUMN last_request_id   text,
    ADD COLUMN last_requested_at timestamptz,
    ADD COLUMN last_seen         text;                           -- what its rules said last, for people
CREATE INDEX surveys_due ON surveys (due_at) WHERE active AND due_at IS NOT NULL;

CREATE TABLE image_tags (
    image_id  text NOT NULL REFERENCES images ON DELETE CASCADE,
    tag       text NOT NULL,
    tagged_by text NOT NULL,
    tagged_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (image_id, tag)
);
CREATE INDEX image_tags_tag ON image_tags (tag);
