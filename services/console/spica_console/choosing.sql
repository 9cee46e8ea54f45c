-- Tags that people give images, and selections that they save.

-- name: add_tag(image_id, tag, tagged_by)!
-- Gives an image a tag; one that it has stays as it is.
INSERT INTO image_tags (image_id, tag, tagged_by) VALUES (:image_id, :tag, :tagged_by) ON CONFLICT DO NOTHING;

-- name: remove_tag(image_id, tag)!
DELETE FROM image_tags WHERE image_id = :image_id AND tag = :tag;

-- name: all_tags()
-- Every tag, and how many images have it.
SELECT tag, count(*) AS images, max(tagged_at) AS last_given FROM image_tags GROUP BY tag ORDER BY tag;

-- name: tags_of(image_id)
SELECT tag, tagged_by, tagged_at FROM image_tags WHERE image_id = :image_id ORDER BY tag;

-- name: images_with(tag)
SELECT i.image_id, i.name, i.filter, i.object, t.tagged_by, t.tagged_at
FROM image_tags AS t JOIN images AS i USING (image_id)
WHERE t.tag = :tag ORDER BY i.name, i.image_id;

-- name: save_selection(name, selection, created_by)!
INSERT INTO selections (name, selection, created_by) VALUES (:name, :selection, :created_by)
ON CONFLICT (name) DO UPDATE
SET selection = excluded.selection, created_by = excluded.created_by, created_at = now();

-- name: selection_named(name)^
SELECT name, selection, created_by, created_at FROM selections WHERE name = :name;

-- name: all_selections()
SELECT name, selection, created_by, created_at FROM selections ORDER BY name;

-- name: remove_selection(name)!
DELETE FROM selections WHERE name = :name;

-- name: uses_of_selection(name)
-- Saved selections and standing surveys that name one.
SELECT 'selection' AS kind, name FROM selections WHERE selection -> 'saved' ? :name
UNION ALL
SELECT 'survey', name FROM surveys WHERE request -> 'selection' -> 'saved' ? :name
ORDER BY kind, name;
