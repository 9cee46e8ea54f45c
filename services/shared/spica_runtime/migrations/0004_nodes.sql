-- Images placed on nodes.

-- What a node says of itself; how it lives is judged by the store's clock alone.
ALTER TABLE nodes
    ADD COLUMN mode        text NOT NULL DEFAULT 'shared' CHECK (mode IN ('shared', 'nodes')),
    ADD COLUMN marker      text,             -- what stands in the marker file of its data root; null with a shared file system
    ADD COLUMN total_bytes bigint NOT NULL DEFAULT 0,
    ADD COLUMN load        double precision NOT NULL DEFAULT 0,
    ADD COLUMN since       timestamptz NOT NULL DEFAULT now();

-- Processes of a node, and where each answers over HTTP (health; with placement also the node's files).
CREATE TABLE node_services (
    node_id text NOT NULL REFERENCES nodes ON DELETE CASCADE,
    service text NOT NULL,
    url     text NOT NULL,
    pid     integer NOT NULL,
    version text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (node_id, service, url)
);

-- Who holds an image's file and what was made of it. Null: a shared file system, or nobody said yet.
ALTER TABLE images
    ADD COLUMN node_id    text REFERENCES nodes,
    ADD COLUMN withheld   jsonb,             -- the image.verified that waits until the image is where it is placed
    ADD COLUMN lost_since timestamptz;       -- its only node is dead
CREATE INDEX images_node ON images (node_id, run, filter);
CREATE INDEX images_path ON images (path);
CREATE INDEX images_lost ON images (node_id) WHERE lost_since IS NOT NULL;

ALTER TABLE stacks ADD COLUMN node_id text REFERENCES nodes;
CREATE INDEX stacks_node ON stacks (node_id);

ALTER TABLE activities ADD COLUMN node_id text;

-- Copies that a node still has of an image that another one holds now: to be removed once nobody reads them any more.
CREATE TABLE leftovers (
    node_id  text NOT NULL REFERENCES nodes,
    image_id text NOT NULL REFERENCES images,
    due_at   timestamptz NOT NULL,
    PRIMARY KEY (node_id, image_id)
);
CREATE INDEX leftovers_due ON leftovers (node_id, due_at);
