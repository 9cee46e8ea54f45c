-- Where images are placed, and who holds them. Locks are taken in one order: placements, images, leftovers.

-- name: place_new(run, filter, node_id, away_s)!
-- A run and filter that nobody placed yet goes to the living node with the most free space; among those that have about
-- as much, to this one.
INSERT INTO placements (run, filter, node_id)
SELECT :run, :filter, n.node_id
FROM nodes n
WHERE n.node_id = :node_id OR (n.mode = 'nodes' AND n.seen_at > now() - make_interval(secs => :away_s)
      AND EXISTS (SELECT 1 FROM node_services v WHERE v.node_id = n.node_id AND v.service = 'ingest'
                  AND v.seen_at > now() - make_interval(secs => :away_s)))
ORDER BY (n.node_id = :node_id AND n.free_bytes >= 0.95 * max(n.free_bytes) OVER ()) DESC,
         n.free_bytes DESC, n.node_id
LIMIT 1
ON CONFLICT (run, filter) DO NOTHING;

-- name: placed_at(run, filter)$
-- The node of a run and filter, which nobody changes until this transaction ends.
SELECT node_id FROM placements WHERE run = :run AND filter = :filter FOR SHARE;

-- name: place(run, filter, node_id)!
INSERT INTO placements (run, filter, node_id) VALUES (:run, :filter, :node_id)
ON CONFLICT (run, filter) DO UPDATE SET node_id = EXCLUDED.node_id, placed_at = now();

-- name: images_elsewhere(run, filter, node_id)
-- Images of a run and filter that a node other than theirs holds.
SELECT image_id, name FROM images
WHERE run = :run AND filter = :filter AND node_id <> :node_id AND lost_since IS NULL ORDER BY image_id;

-- name: image(image_id)^
SELECT image_id, name, sha256, size_bytes, path, run, filter, batch, uri, modified_at, node_id, lost_since
FROM images WHERE image_id = :image_id;

-- name: lock_image(image_id)^
-- Who holds an image, and nobody else changes that until this transaction ends.
SELECT node_id, lost_since, withheld, path FROM images WHERE image_id = :image_id FOR UPDATE;

-- name: hold_image(image_id, node_id, path)!
UPDATE images SET node_id = :node_id, path = :path, lost_since = NULL WHERE image_id = :image_id;

-- name: withhold(image_id, event)!
UPDATE images SET withheld = :event WHERE image_id = :image_id;

-- name: release(image_id)!
UPDATE images SET withheld = NULL WHERE image_id = :image_id;

-- name: lose(image_id)$
UPDATE images SET lost_since = now() WHERE image_id = :image_id AND lost_since IS NULL RETURNING image_id;

-- name: files_of(image_id)
-- The latest content of each file that belongs to an image: its own, and what was made of it. What was made of a stack
-- that it is a member of belongs to the stack, and calibration frames that it asked for to nobody.
SELECT DISTINCT ON (p.path) p.path, p.sha256, p.size_bytes, p.kind
FROM activities a
JOIN was_generated_by g USING (activity_id)
JOIN products p USING (product_id)
WHERE a.about = :image_id AND p.path NOT LIKE 'auxiliary/%' AND p.path NOT LIKE 'rejected/%'
ORDER BY p.path, p.product_id DESC;

-- name: solution_ids(image_id)
SELECT solution_id FROM solutions WHERE image_id = :image_id AND stack_id IS NULL;

-- name: no_leftover(node_id, image_id)!
DELETE FROM leftovers WHERE node_id = :node_id AND image_id = :image_id;

-- name: leftovers_due(node_id)
SELECT image_id FROM leftovers WHERE node_id = :node_id AND due_at <= now() ORDER BY due_at LIMIT 50;

-- name: strays(node_id, paths, image_ids, solution_ids)
-- Which of these files and folders, that were found on a node, are of images that another one holds.
SELECT image_id FROM images WHERE path = ANY(:paths::text[]) AND node_id <> :node_id
UNION
SELECT image_id FROM images WHERE image_id = ANY(:image_ids::text[]) AND node_id <> :node_id
UNION
SELECT image_id FROM solutions JOIN images USING (image_id)
WHERE solution_id = ANY(:solution_ids::text[]) AND stack_id IS NULL AND images.node_id <> :node_id;

-- name: take_turn()$
-- One process looks after dead nodes at a time.
SELECT pg_try_advisory_xact_lock(hashtextextended('spica dead nodes', 0));

-- name: pair_of_dead_node(dead_after_s)^
-- A run and filter that is placed on a dead node.
SELECT p.run, p.filter, p.node_id
FROM placements p JOIN nodes n USING (node_id)
WHERE n.marker IS NOT NULL AND n.seen_at < now() - make_interval(secs => :dead_after_s)
ORDER BY p.run, p.filter LIMIT 1 FOR UPDATE OF p;

-- name: roomiest(node_id, away_s)$
-- The living node with the most free space, with ties as for a new run and filter.
SELECT n.node_id
FROM nodes n
WHERE n.node_id = :node_id OR (n.mode = 'nodes' AND n.seen_at > now() - make_interval(secs => :away_s)
      AND EXISTS (SELECT 1 FROM node_services v WHERE v.node_id = n.node_id AND v.service = 'ingest'
                  AND v.seen_at > now() - make_interval(secs => :away_s)))
ORDER BY (n.node_id = :node_id AND n.free_bytes >= 0.95 * max(n.free_bytes) OVER ()) DESC,
         n.free_bytes DESC, n.node_id
LIMIT 1;

-- name: back_again(away_s)
-- Images that were lost with a node that lives again.
UPDATE images i SET lost_since = NULL
FROM nodes n
WHERE i.lost_since IS NOT NULL AND i.node_id = n.node_id AND n.seen_at > now() - make_interval(secs => :away_s)
RETURNING i.image_id, i.name, i.run, i.filter;

-- name: stack_of_dead_node(dead_after_s)^
-- A stack that is being made on a dead node, with the event that planned it.
SELECT s.stack_id, s.node_id, o.body
FROM stacks s JOIN nodes n USING (node_id)
JOIN LATERAL (
    SELECT body FROM outbox
    WHERE subject = 'stack.planned' AND body::jsonb ->> 'stack_id' = s.stack_id
    ORDER BY outbox_id DESC LIMIT 1
) o ON true
WHERE n.marker IS NOT NULL AND n.seen_at < now() - make_interval(secs => :dead_after_s)
  AND s.state IN ('planned', 'calibrated', 'coadded', 'done')
ORDER BY s.stack_id LIMIT 1 FOR UPDATE OF s;

-- name: plan_again(stack_id, node_id)!
UPDATE stacks SET state = 'planned', node_id = :node_id, updated_at = now() WHERE stack_id = :stack_id;

-- name: call_off(stack_id, subjects, services)!
-- Whatever was said of a stack so far has no effect any more: it is made from the beginning, elsewhere.
INSERT INTO inbox (service, event_id, subject)
SELECT r.service, o.headers ->> 'ce-id', o.subject
FROM outbox o JOIN unnest(:subjects::text[], :services::text[]) AS r (subject, service) USING (subject)
WHERE o.body::jsonb ->> 'stack_id' = :stack_id
ON CONFLICT DO NOTHING;

-- name: unowned_images(after)
SELECT image_id, path, size_bytes, run, filter, name FROM images
WHERE node_id IS NULL AND image_id > :after ORDER BY image_id LIMIT 500;

-- name: adopt_image(image_id, node_id)!
UPDATE images SET node_id = :node_id WHERE image_id = :image_id AND node_id IS NULL;

-- name: unowned_stacks()
SELECT stack_id FROM stacks WHERE node_id IS NULL;

-- name: adopt_stack(stack_id, node_id)!
UPDATE stacks SET node_id = :node_id WHERE stack_id = :stack_id AND node_id IS NULL;
