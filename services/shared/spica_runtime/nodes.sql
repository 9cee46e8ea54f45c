-- name: enter_node(node_id, host, data_root, mode, marker, free_bytes, total_bytes, cores, load)$
-- A node says who it is. Nothing comes back where another data folder goes by this name.
INSERT INTO nodes (node_id, host, data_root, mode, marker, free_bytes, total_bytes, cores, load)
VALUES (:node_id, :host, :data_root, :mode, :marker, :free_bytes, :total_bytes, :cores, :load)
ON CONFLICT (node_id) DO UPDATE
SET host = EXCLUDED.host, data_root = EXCLUDED.data_root, mode = EXCLUDED.mode,
    marker = coalesce(EXCLUDED.marker, nodes.marker), free_bytes = EXCLUDED.free_bytes,
    total_bytes = EXCLUDED.total_bytes, cores = EXCLUDED.cores, load = EXCLUDED.load, seen_at = now()
WHERE nodes.marker IS NULL OR EXCLUDED.marker IS NULL OR nodes.marker = EXCLUDED.marker
RETURNING node_id;

-- name: enter_service(node_id, service, url, pid, version)!
INSERT INTO node_services (node_id, service, url, pid, version)
VALUES (:node_id, :service, :url, :pid, :version)
ON CONFLICT (node_id, service, url) DO UPDATE SET pid = EXCLUDED.pid, version = EXCLUDED.version, seen_at = now();

-- name: leave_service(node_id, service, url)!
DELETE FROM node_services WHERE node_id = :node_id AND service = :service AND url = :url;

-- name: forget_services(node_id)!
-- Processes that ended without a word, an hour ago.
DELETE FROM node_services WHERE node_id = :node_id AND seen_at < now() - interval '1 hour';

-- name: forget_hosts()!
-- Hosts with a shared file system that were silent for a day: containers that were replaced, most likely. They hold nothing.
DELETE FROM nodes n
WHERE n.marker IS NULL AND n.seen_at < now() - interval '1 day'
  AND NOT EXISTS (SELECT 1 FROM placements p WHERE p.node_id = n.node_id)
  AND NOT EXISTS (SELECT 1 FROM images i WHERE i.node_id = n.node_id)
  AND NOT EXISTS (SELECT 1 FROM stacks s WHERE s.node_id = n.node_id)
  AND NOT EXISTS (SELECT 1 FROM leftovers l WHERE l.node_id = n.node_id);

-- name: marker_of(node_id)$
SELECT marker FROM nodes WHERE node_id = :node_id;

-- name: owner_of_image(key)$
SELECT node_id FROM images WHERE image_id = :key;

-- name: owner_of_stack(key)$
SELECT node_id FROM stacks WHERE stack_id = :key;

-- name: owner_of_placement(key)$
SELECT p.node_id FROM placements p JOIN images i USING (run, filter) WHERE i.image_id = :key;

-- name: hold_owner_of_image(key)$
-- As above, and nobody changes it until this transaction ends.
SELECT node_id FROM images WHERE image_id = :key FOR SHARE;

-- name: hold_owner_of_stack(key)$
SELECT node_id FROM stacks WHERE stack_id = :key FOR NO KEY UPDATE;

-- name: hold_owner_of_placement(key)$
SELECT p.node_id FROM placements p JOIN images i USING (run, filter) WHERE i.image_id = :key FOR SHARE OF p;

-- name: handled(service, event_id)$
SELECT EXISTS (SELECT 1 FROM inbox WHERE service = :service AND event_id = :event_id);

-- name: dead_nodes(dead_after_s)
-- Nodes that hold images and have not been heard of for so long.
SELECT node_id FROM nodes
WHERE marker IS NOT NULL AND seen_at < now() - make_interval(secs => :dead_after_s) ORDER BY node_id;

-- name: leave_behind(node_id, image_id, keep_s)!
-- Copies here that nobody will read any more, some time from now.
INSERT INTO leftovers (node_id, image_id, due_at)
VALUES (:node_id, :image_id, now() + make_interval(secs => :keep_s))
ON CONFLICT (node_id, image_id) DO UPDATE SET due_at = greatest(leftovers.due_at, EXCLUDED.due_at);

-- name: peers(node_ids)
-- Where nodes are, and how long they were silent.
SELECT n.node_id, n.data_root, n.marker, extract(epoch FROM now() - n.seen_at)::double precision AS silent_s,
       ARRAY(SELECT v.url FROM node_services v WHERE v.node_id = n.node_id ORDER BY v.seen_at DESC) AS urls
FROM nodes n WHERE n.node_id = ANY(:node_ids::text[]);

-- name: whereabouts(paths)
-- The latest known content of these files, and the node in whose data folder each lies: that of the image or stack it
-- was made of, else (calibration frames, which belong to no image) that of the work that made it.
SELECT DISTINCT ON (p.path) p.path, p.sha256, p.size_bytes, i.lost_since,
       CASE WHEN p.path LIKE 'auxiliary/%' THEN a.node_id ELSE coalesce(i.node_id, s.node_id, a.node_id) END AS node_id
FROM products p
LEFT JOIN was_generated_by g USING (product_id)
LEFT JOIN activities a USING (activity_id)
LEFT JOIN images i ON i.image_id = a.about
LEFT JOIN stacks s ON s.stack_id = a.about
WHERE p.path = ANY(:paths::text[])
ORDER BY p.path, p.product_id DESC, a.started_at DESC;

-- name: assign_stack(stack_id, node_id, away_s)!
-- A new stack is made on the living node that holds most of its members; where there is none, here.
UPDATE stacks SET node_id = coalesce((
    SELECT i.node_id
    FROM stack_members m JOIN images i USING (image_id) JOIN nodes n USING (node_id)
    WHERE m.stack_id = :stack_id AND m.selected AND n.seen_at > now() - make_interval(secs => :away_s)
    GROUP BY i.node_id ORDER BY count(*) DESC, i.node_id = :node_id DESC, i.node_id LIMIT 1
), :node_id)
WHERE stack_id = :stack_id;
