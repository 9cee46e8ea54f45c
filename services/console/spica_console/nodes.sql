-- name: list_nodes()
-- Who is there, what each has and holds, and how long each was silent.
SELECT n.node_id, n.host, n.mode, n.data_root, n.free_bytes, n.total_bytes, n.cores, n.load, n.since, n.seen_at,
       extract(epoch FROM now() - n.seen_at)::double precision AS silent_s,
       ARRAY(SELECT DISTINCT v.service FROM node_services v
             WHERE v.node_id = n.node_id AND v.seen_at >= n.seen_at - interval '1 minute' ORDER BY 1) AS services,
       (SELECT count(*) FROM images i WHERE i.node_id = n.node_id) AS images,
       (SELECT coalesce(sum(i.size_bytes), 0)::bigint FROM images i WHERE i.node_id = n.node_id) AS image_bytes,
       (SELECT count(*) FROM images i WHERE i.node_id = n.node_id AND i.lost_since IS NOT NULL) AS images_lost,
       (SELECT count(*) FROM stacks s WHERE s.node_id = n.node_id) AS stacks,
       (SELECT count(*) FROM placements p WHERE p.node_id = n.node_id) AS placements,
       (SELECT count(*) FROM leftovers l WHERE l.node_id = n.node_id) AS leftovers
FROM nodes n ORDER BY n.node_id;

-- name: list_placements(node_id)
-- Which run and filter is placed where, how many of its images are there, and how many are not yet.
SELECT p.run, p.filter, p.node_id, p.placed_at, count(i.image_id) FILTER (WHERE i.node_id = p.node_id) AS images,
       coalesce(sum(i.size_bytes) FILTER (WHERE i.node_id = p.node_id), 0)::bigint AS image_bytes,
       count(i.image_id) FILTER (WHERE i.node_id <> p.node_id AND i.lost_since IS NULL) AS on_the_way,
       count(i.image_id) FILTER (WHERE i.lost_since IS NOT NULL) AS lost
FROM placements p LEFT JOIN images i USING (run, filter)
WHERE CAST(:node_id AS text) IS NULL OR p.node_id = :node_id
GROUP BY p.run, p.filter, p.node_id, p.placed_at ORDER BY p.run, p.filter;

-- name: images_without_node()$
SELECT count(*) FROM images WHERE node_id IS NULL;

-- name: filters_of_run(run)
SELECT filter, count(*) AS images FROM images WHERE run = :run GROUP BY filter ORDER BY filter;

-- name: images_of_pair(run, filter)$
SELECT count(*) FROM images WHERE run = :run AND filter = :filter;

-- name: bytes_to_come(run, filter, node_id)$
SELECT coalesce(sum(size_bytes), 0)::bigint FROM images
WHERE run = :run AND filter = :filter AND node_id <> :node_id AND lost_since IS NULL;

-- name: on_the_way(image_ids, node_id, since)
-- Which of these images are not on this node yet, and why one never may be.
SELECT i.image_id, i.name, i.lost_since,
       (SELECT d.message FROM dead_letters d
        WHERE d.subject = 'placement.wanted' AND d.sent_again_at IS NULL AND d.created_at >= :since
          AND d.body::jsonb ->> 'image_id' = i.image_id ORDER BY d.created_at DESC LIMIT 1) AS failure
FROM images i WHERE i.image_id = ANY(:image_ids::text[]) AND i.node_id <> :node_id ORDER BY i.name;

-- name: whereabouts_of_image(image_id)^
SELECT i.node_id, i.lost_since, i.withheld IS NOT NULL AS waits, p.node_id AS placed_on
FROM images i LEFT JOIN placements p USING (run, filter) WHERE i.image_id = :image_id;
