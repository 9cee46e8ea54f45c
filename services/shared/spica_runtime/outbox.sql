-- name: insert_outbox(message_id, subject, headers, body)!
-- One event to be published once this transaction has committed. The same event twice is one.
INSERT INTO outbox (message_id, subject, headers, body)
VALUES (:message_id, :subject, :headers, :body)
ON CONFLICT (message_id) DO NOTHING;

-- name: take_unsent(limit)
-- The oldest unsent events that no other relay holds.
SELECT outbox_id, message_id, subject, headers, body
FROM outbox
WHERE sent_at IS NULL AND refused IS NULL
ORDER BY outbox_id
LIMIT :limit
FOR UPDATE SKIP LOCKED;

-- name: mark_sent(outbox_ids)!
UPDATE outbox SET sent_at = now() WHERE outbox_id = ANY(:outbox_ids);

-- name: mark_refused(outbox_id, refused)!
-- The bus will never take this one: it must not stand in the way of the others.
UPDATE outbox SET refused = :refused WHERE outbox_id = :outbox_id;

-- name: mark_all_unsent()!
-- A stream that was lost is filled again from here.
UPDATE outbox SET sent_at = NULL WHERE sent_at IS NOT NULL;

-- name: count_unsent()$
SELECT count(*) FROM outbox WHERE sent_at IS NULL AND refused IS NULL;
