-- Standing watches over archives, what was seen there, and which folders are watched.

CREATE TABLE watches (
    name       text PRIMARY KEY,
    definition jsonb NOT NULL,                     -- spica_ingest.watching.model.Watch
    active     boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    next_at    timestamptz NOT NULL DEFAULT now(), -- when it is polled next, if it is active
    polled_at  timestamptz,                        -- when the last pass ended, however it did
    good_at    timestamptz,                        -- when the last pass ended well
    failures   integer NOT NULL DEFAULT 0,         -- passes in a row that did not
    error      jsonb,                              -- code and message of the last one, null when it went well
    holder     text,                               -- who is polling it now
    held_until timestamptz                         -- a holder that is silent for so long has lost it
);
CREATE INDEX watches_due ON watches (next_at) WHERE active;

-- Every version of every file that a watch has seen: announced once, whoever watches and however often it is read.
CREATE TABLE archive_ledger (
    uri          text NOT NULL,
    checksum     text NOT NULL,                    -- md5:<hex>, as the archive says, or a substitute where it says none
    watch        text NOT NULL,                    -- the watch that saw it first (it may be removed since)
    state        text NOT NULL CHECK (state IN ('waiting', 'announced', 'handled', 'replaced')),
    size_bytes   bigint,
    modified_at  timestamptz NOT NULL,             -- when the archive last changed the file's entry
    released_at  timestamptz,                      -- when it is public, null: not said
    details      jsonb NOT NULL DEFAULT '{}',      -- for people: filter, target, programme, when it was taken
    event_id     text,                             -- of the image.arrived that announced it (last)
    fetch_id     text,                             -- of the event by which ingest then has it fetched
    early        boolean NOT NULL DEFAULT false,   -- announced before its release, by credentials
    found_at     timestamptz NOT NULL DEFAULT now(),
    announced_at timestamptz,
    asked_at     timestamptz,                      -- when it was last tried whether our credentials open it
    PRIMARY KEY (uri, checksum)
);
CREATE INDEX archive_ledger_watch ON archive_ledger (watch, state);
CREATE INDEX archive_ledger_event ON archive_ledger (event_id);

-- Folders that some ingest service looks through, so that people see them beside the watches.
CREATE TABLE watched_folders (
    folder    text NOT NULL,
    host      text NOT NULL,
    method    text NOT NULL,                       -- how news is noticed there, in words
    every_s   double precision NOT NULL,
    looked_at timestamptz NOT NULL,
    announced bigint NOT NULL DEFAULT 0,           -- files, since it is watched
    error     text,
    PRIMARY KEY (folder, host)
);
