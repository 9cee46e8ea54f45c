-- name: mark_handled(service, event_id, subject)!
-- The mark that makes effects exactly-once: a second commit of the same event finds it and stops.
INSERT INTO inbox (service, event_id, subject) VALUES (:service, :event_id, :subject)
ON CONFLICT (service, event_id) DO NOTHING;

-- name: begin_attempt(service, event_id)^
-- Nothing comes back where this service has handled this event already.
INSERT INTO attempts (service, event_id, begun)
SELECT :service::text, :event_id::text, 1
WHERE NOT EXISTS (SELECT 1 FROM inbox WHERE service = :service::text AND event_id = :event_id::text)
ON CONFLICT (service, event_id) DO UPDATE SET begun = attempts.begun + 1
RETURNING begun, failed;

-- name: count_failure(service, event_id)$
UPDATE attempts SET failed = failed + 1 WHERE service = :service AND event_id = :event_id
RETURNING failed;

-- name: forgive_attempt(service, event_id)!
-- The attempt ended for a reason that is not the message's: a stop, or a store that went away.
UPDATE attempts SET begun = begun - 1 WHERE service = :service AND event_id = :event_id;

-- name: end_attempts(service, event_id)!
DELETE FROM attempts WHERE service = :service AND event_id = :event_id;

-- name: insert_dead_letter(dead_letter_id, service, event_id, subject, headers, body, code, message, numbers, attempts)!
INSERT INTO dead_letters
    (dead_letter_id, service, event_id, subject, headers, body, code, message, numbers, attempts)
VALUES
    (:dead_letter_id, :service, :event_id, :subject, :headers, :body, :code, :message, :numbers, :attempts);

-- name: list_dead_letters(only_waiting)
SELECT dead_letter_id, service, event_id, subject, headers, body, code, message, numbers, attempts,
       created_at, sent_again_at
FROM dead_letters
WHERE NOT :only_waiting OR sent_again_at IS NULL
ORDER BY created_at;

-- name: take_dead_letter(dead_letter_id)^
SELECT dead_letter_id, service, event_id, subject, headers, body, sent_again_at
FROM dead_letters
WHERE dead_letter_id = :dead_letter_id
FOR UPDATE;

-- name: mark_resent(dead_letter_id)!
UPDATE dead_letters SET sent_again_at = clock_timestamp() WHERE dead_letter_id = :dead_letter_id;

-- name: unmark_handled(service, event_id)!
DELETE FROM inbox WHERE service = :service AND event_id = :event_id;
