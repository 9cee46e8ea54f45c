-- name: insert_activity(activity_id, service, name, version, configuration, event_id, subject, about, started_at, ended_at, host, outcome, log, node_id)!
INSERT INTO activities
    (activity_id, service, name, version, configuration, event_id, subject, about,
     started_at, ended_at, host, outcome, log, node_id)
VALUES
    (:activity_id, :service, :name, :version, :configuration, :event_id, :subject, :about,
     :started_at, :ended_at, :host, :outcome, :log, :node_id);

-- name: upsert_product(path, sha256, size_bytes, kind)$
-- The no-op update makes RETURNING answer for products that are known already.
INSERT INTO products (path, sha256, size_bytes, kind) VALUES (:path, :sha256, :size_bytes, :kind)
ON CONFLICT (path, sha256) DO UPDATE SET kind = products.kind
RETURNING product_id;

-- name: insert_used(activity_id, product_id, role)!
INSERT INTO used (activity_id, product_id, role) VALUES (:activity_id, :product_id, :role)
ON CONFLICT DO NOTHING;

-- name: insert_generated(product_id, activity_id, role)!
INSERT INTO was_generated_by (product_id, activity_id, role) VALUES (:product_id, :activity_id, :role)
ON CONFLICT DO NOTHING;
