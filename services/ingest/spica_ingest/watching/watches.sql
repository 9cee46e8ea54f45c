-- Standing watches, their bookmarks, and the ledger of what archives have.

-- name: insert_watch(name, definition, active)^
-- Nothing comes back where the name is taken.
INSERT INTO watches (name, definition, active) VALUES (:name, :definition, :active)
ON CONFLICT (name) DO NOTHING
RETURNING name, definition, created_at, failures;

-- name: delete_watch(name)$
DELETE FROM watches WHERE name = :name RETURNING name;

-- name: delete_bookmarks(prefix)!
DELETE FROM bookmarks WHERE starts_with(name, :prefix);

-- name: set_active(name, active)$
-- One that is resumed is due at once.
UPDATE watches SET active = :active, next_at = CASE WHEN :active THEN now() ELSE next_at END
WHERE name = :name
RETURNING name;

-- name: select_watch(name)^
SELECT name, definition, created_at, failures FROM watches WHERE name = :name;

-- name: list_watches()
SELECT name, definition, active, created_at, next_at, polled_at, good_at, failures, error,
       CASE WHEN held_until > now() THEN holder END AS holder
FROM watches
ORDER BY name;

-- name: count_files()
SELECT watch, state, count(*) AS files
FROM archive_ledger
GROUP BY watch, state;

-- name: claim_due(holder, hold_s)^
-- The watch that is due longest and that nobody polls: held by this one from now on.
UPDATE watches SET holder = :holder, held_until = now() + make_interval(secs => :hold_s)
WHERE name = (
    SELECT name FROM watches
    WHERE active AND next_at <= now() AND (held_until IS NULL OR held_until <= now())
    ORDER BY next_at LIMIT 1
    FOR UPDATE SKIP LOCKED)
RETURNING name, definition, created_at, failures;

-- name: claim_named(name, holder, hold_s)^
UPDATE watches SET holder = :holder, held_until = now() + make_interval(secs => :hold_s)
WHERE name = :name AND (held_until IS NULL OR held_until <= now())
RETURNING name, definition, created_at, failures;

-- name: hold(name, holder, hold_s)$
-- The name, if this holder has it still; it then goes on holding it, and the row is locked until the transaction ends.
UPDATE watches SET held_until = now() + make_interval(secs => :hold_s)
WHERE name = :name AND holder = :holder AND held_until > now()
RETURNING name;

-- name: let_go(name, holder)!
-- Without a result: the next one begins at once.
UPDATE watches SET holder = NULL, held_until = NULL WHERE name = :name AND holder = :holder;

-- name: end_pass(name, holder, good, error, next_s)!
UPDATE watches SET
    holder = NULL, held_until = NULL, polled_at = now(),
    good_at = CASE WHEN :good::boolean THEN now() ELSE good_at END,
    failures = CASE WHEN :good::boolean THEN 0 ELSE failures + 1 END,
    error = :error,
    next_at = now() + make_interval(secs => :next_s)
WHERE name = :name AND holder = :holder;

-- name: seconds_to_next()$
-- How long until some watch is due that nobody holds; null: none is.
SELECT extract(epoch FROM min(greatest(next_at, coalesce(held_until, next_at))) - now())::double precision
FROM watches WHERE active;

-- name: select_bookmarks(prefix)
SELECT name, value FROM bookmarks WHERE starts_with(name, :prefix);

-- name: upsert_bookmark(name, value)!
INSERT INTO bookmarks (name, value) VALUES (:name, :value)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = now();

-- name: lock_ledger()$
-- Two watches may see the same file at the same time: their pages are entered one after the other.
SELECT pg_advisory_xact_lock(hashtext('spica.archive_ledger'))::text;

-- name: known_versions(uris)
SELECT uri, checksum, state, modified_at, released_at, early,
       early AND EXISTS (
           SELECT 1 FROM dead_letters AS d
           WHERE d.event_id IN (l.event_id, l.fetch_id) AND d.sent_again_at IS NULL) AS failed
FROM archive_ledger AS l
WHERE uri = ANY(:uris::text[]);

-- name: replace_waiting(uri, checksum)*!
-- Another content came before this one was public: it never will be.
UPDATE archive_ledger SET state = 'replaced' WHERE uri = :uri AND checksum <> :checksum AND state = 'waiting';

-- name: enter(uri, checksum, watch, state, size_bytes, modified_at, released_at, details, event_id, fetch_id, early)*!
INSERT INTO archive_ledger (
    uri, checksum, watch, state, size_bytes, modified_at, released_at, details, event_id, fetch_id, early, announced_at)
VALUES (
    :uri, :checksum, :watch, :state, :size_bytes, :modified_at, :released_at, :details, :event_id, :fetch_id, :early,
    CASE WHEN :event_id::text IS NOT NULL THEN now() END)
ON CONFLICT (uri, checksum) DO UPDATE SET
    state = excluded.state, size_bytes = excluded.size_bytes, modified_at = excluded.modified_at,
    released_at = excluded.released_at, details = excluded.details, early = excluded.early,
    event_id = coalesce(excluded.event_id, archive_ledger.event_id),
    fetch_id = coalesce(excluded.fetch_id, archive_ledger.fetch_id),
    announced_at = coalesce(excluded.announced_at, archive_ledger.announced_at);

-- name: mark_handled_files(watch)!
-- Announced files (of one watch, or null: of all) that ingest is through with: a fetch of its own may follow the
-- arrival (see `fetch_id`).
UPDATE archive_ledger AS l SET state = 'handled'
WHERE (:watch::text IS NULL OR watch = :watch::text) AND state = 'announced'
  AND EXISTS (SELECT 1 FROM inbox WHERE service = 'ingest' AND event_id = l.event_id)
  AND (EXISTS (SELECT 1 FROM inbox WHERE service = 'ingest' AND event_id = l.fetch_id)
       OR NOT EXISTS (SELECT 1 FROM outbox WHERE message_id = l.fetch_id));

-- name: count_on_the_way(watch)$
SELECT count(*) FROM archive_ledger WHERE watch = :watch AND state = 'announced';

-- name: unasked(watch, ask_again_s, limit)
-- Files that are not public, oldest question first, for which our credentials were not tried (for a while).
SELECT uri, checksum, size_bytes, modified_at, released_at, details
FROM archive_ledger
WHERE watch = :watch AND state = 'waiting'
  AND (asked_at IS NULL OR asked_at < now() - make_interval(secs => :ask_again_s))
ORDER BY asked_at NULLS FIRST, uri
LIMIT :limit;

-- name: mark_asked(uri, checksum)!
UPDATE archive_ledger SET asked_at = now() WHERE uri = :uri AND checksum = :checksum;

-- name: announce_early(uri, checksum, event_id, fetch_id)$
-- The uri, if it waits still.
UPDATE archive_ledger SET
    state = 'announced', early = true, announced_at = now(), asked_at = now(),
    event_id = :event_id, fetch_id = :fetch_id
WHERE uri = :uri AND checksum = :checksum AND state = 'waiting'
RETURNING uri;

-- name: upsert_folder(folder, host, method, every_s, announced, error)!
INSERT INTO watched_folders (folder, host, method, every_s, looked_at, announced, error)
VALUES (:folder, :host, :method, :every_s, now(), :announced, :error)
ON CONFLICT (folder, host) DO UPDATE SET
    method = excluded.method, every_s = excluded.every_s, looked_at = now(),
    announced = watched_folders.announced + excluded.announced, error = excluded.error;

-- name: list_folders()
-- One that nobody has looked through for a week is not watched any more.
SELECT folder, host, method, every_s, looked_at, announced, error FROM watched_folders
WHERE looked_at > now() - interval '7 days'
ORDER BY folder, host;
