-- name: stack_of_request(request_id)^
-- The stack that this request made, if it was heard before.
SELECT stack_id, name, state FROM stacks WHERE request_id = :request_id;

-- name: insert_stack(stack_id, request_id, name, filter, request, requested_at, grid, combine, plan, survey, extends, replaces)^
-- Writes a planned stack; gives nothing back where its request (or the very stack) is known already. A stack that is to
-- be made anew, and is not there, is none.
INSERT INTO stacks (stack_id, request_id, name, filter, state, request, requested_at, grid, combine, plan, survey,
                    extends, replaces)
VALUES (:stack_id, :request_id, :name, :filter, 'planned', :request, :requested_at, :grid, :combine, :plan, :survey,
        :extends, (SELECT stack_id FROM stacks WHERE stack_id = :replaces::text))
ON CONFLICT DO NOTHING
RETURNING stack_id;

-- name: insert_members(stack_id, image_id, ordinal, selected, rule, found, solution_id)*!
-- Writes the verdict on every candidate.
INSERT INTO stack_members (stack_id, image_id, ordinal, selected, rule, found, solution_id)
VALUES (:stack_id, :image_id, :ordinal, :selected, :rule, :found, :solution_id);

-- name: stack(stack_id)^
-- One stack as it was planned.
SELECT stack_id, request_id, name, filter, state, requested_at, grid, combine, plan, extends
FROM stacks WHERE stack_id = :stack_id;

-- name: members(stack_id)
-- Members of a stack in their order, each with its files, the measurement that was its latest when the
-- stack was planned (so that making it again gives the same) and its solution: the joint one, or, where the stack takes
-- its members as they are solved, the one of its own that it had at planning.
SELECT i.image_id, i.name, i.path, i.sha256, i.size_bytes, i.profile, i.instrument, i.object, i.exposure_time_s,
       i.mjd_obs, m.weight_path, (m.metrics ->> 'fwhm_arcsec')::double precision AS fwhm_arcsec,
       (m.metrics ->> 'ellipticity')::double precision AS ellipticity,
       s.solution_id, s.header_path, s.flux_scale, s.limiting_mag
FROM stack_members k
JOIN stacks t USING (stack_id)
JOIN images i USING (image_id)
LEFT JOIN LATERAL (
    SELECT weight_path, metrics FROM measurements
    WHERE subject_kind = 'image' AND subject_id = i.image_id AND created_at <= t.created_at
    ORDER BY created_at DESC, measurement_id DESC LIMIT 1
) m ON true
LEFT JOIN LATERAL (
    SELECT solution_id, header_path, flux_scale, limiting_mag FROM solutions
    WHERE image_id = i.image_id
      AND (solutions.stack_id = k.stack_id
           OR (t.plan ->> 'solutions' = 'own' AND solutions.solution_id = k.solution_id))
    ORDER BY (solutions.stack_id = k.stack_id) DESC NULLS LAST, created_at DESC, solution_id DESC LIMIT 1
) s ON true
WHERE k.stack_id = :stack_id AND k.selected
ORDER BY k.ordinal;

-- name: base(stack_id)^
-- The stack that another one goes on from: its sums, and what went into them, in this order.
SELECT stack_id, result -> 'coadd' -> 'sums' ->> 'path' AS sums,
       ARRAY(SELECT jsonb_array_elements_text(result -> 'coadd' -> 'members')) AS image_ids
FROM stacks WHERE stack_id = :stack_id;

-- name: input_samples(stack_id)$
-- Pixels of all CCDs of all members.
SELECT coalesce(sum(c.naxis1::bigint * c.naxis2), 0)::bigint
FROM stack_members k JOIN ccds c USING (image_id) WHERE k.stack_id = :stack_id AND k.selected;

-- name: products_at(paths)
-- The latest known content of these files.
SELECT DISTINCT ON (path) path, sha256, size_bytes, kind FROM products
WHERE path = ANY(:paths::text[])
ORDER BY path, product_id DESC;

-- name: hold_stack(stack_id)$
-- Nobody else goes on with this stack until this transaction ends.
SELECT stack_id FROM stacks WHERE stack_id = :stack_id FOR NO KEY UPDATE;

-- name: making(stack_id)^
-- How the making of a stack stands. Given up: a stage failed, and its dead letter, or another one of the stack's parts,
-- was not sent again.
SELECT stack_id, name, state, plan -> 'making' AS making,
       state = 'failed' AND (
           NOT EXISTS (
               SELECT 1 FROM dead_letters
               WHERE dead_letter_id = result -> 'failure' ->> 'dead_letter_id' AND sent_again_at IS NOT NULL)
           OR EXISTS (
               SELECT 1 FROM dead_letters
               WHERE sent_again_at IS NULL AND service = 'stack' AND subject = 'stack.part_wanted'
                 AND strpos(body, '"' || :stack_id::text || '"') > 0)
       ) AS given_up,
       (SELECT min(r.stack_id) FROM stacks r WHERE r.replaces = :stack_id::text AND r.state <> 'failed') AS replaced_by
FROM stacks WHERE stack_id = :stack_id::text;

-- name: begin_making(stack_id, making)!
-- The members are on one system: parts are wanted from now on. What failed before does not matter any more.
UPDATE stacks
SET plan = plan || jsonb_build_object('making', :making::jsonb),
    state = CASE WHEN state IN ('planned', 'failed') THEN 'calibrated' ELSE state END,
    result = result - 'failure', updated_at = now()
WHERE stack_id = :stack_id;

-- name: go_on(stack_id)!
-- A stack that had failed is being made again.
UPDATE stacks SET state = 'calibrated', result = result - 'failure', updated_at = now()
WHERE stack_id = :stack_id AND state = 'failed';

-- name: forget_parts(stack_id)!
DELETE FROM stack_parts WHERE stack_id = :stack_id;

-- name: add_parts(stack_id, step, numbers)!
-- Units of one step, wanted.
INSERT INTO stack_parts (stack_id, step, number)
SELECT :stack_id, :step, n FROM unnest(:numbers::integer[]) n ON CONFLICT DO NOTHING;

-- name: part(stack_id, step, number)^
SELECT done_at IS NOT NULL AS done FROM stack_parts WHERE stack_id = :stack_id AND step = :step AND number = :number;

-- name: finish_part(stack_id, step, number, path, sha256, numbers, host, elapsed_s)$
-- A part is done; nothing comes back where it was done before.
UPDATE stack_parts
SET done_at = clock_timestamp(), path = :path, sha256 = :sha256, numbers = :numbers, host = :host, elapsed_s = :elapsed_s
WHERE stack_id = :stack_id AND step = :step AND number = :number AND done_at IS NULL
RETURNING number;

-- name: want_again(stack_id, step, numbers)
-- Parts whose files are gone.
UPDATE stack_parts SET done_at = NULL, numbers = '{}'
WHERE stack_id = :stack_id AND step = :step AND number = ANY(:numbers::integer[]) AND done_at IS NOT NULL
RETURNING number;

-- name: put_aside(stack_id, step, number)!
-- Not done since the stack has failed: whoever finds it going on again asks for it.
UPDATE stack_parts SET numbers = '{"put_aside": true}'
WHERE stack_id = :stack_id AND step = :step AND number = :number AND done_at IS NULL;

-- name: take_up(stack_id)
-- Parts that were put aside, wanted again.
UPDATE stack_parts SET numbers = '{}'
WHERE stack_id = :stack_id AND done_at IS NULL AND numbers ? 'put_aside'
RETURNING step, number;

-- name: steps(stack_id)
-- How many parts of each step there are, and how many of them are done.
SELECT step, count(*)::integer AS total, count(done_at)::integer AS done
FROM stack_parts WHERE stack_id = :stack_id GROUP BY step;

-- name: wanted(stack_id, step)
-- Numbers of the parts of a step that are not done.
SELECT number FROM stack_parts WHERE stack_id = :stack_id AND step = :step AND done_at IS NULL ORDER BY number;

-- name: progress(stack_id, window_s)
-- How far each step is, and how many parts were done of late, in how many seconds.
SELECT s.name, s.state, s.state = 'failed' OR coalesce((s.plan -> 'making' ->> 'ended')::boolean, false) AS ended,
       p.step, count(*)::integer AS total, count(p.done_at)::integer AS done,
       count(p.done_at) FILTER (WHERE p.done_at > now() - make_interval(secs => :window_s))::integer AS late_done,
       extract(epoch FROM now() - min(p.done_at - make_interval(secs => coalesce(p.elapsed_s, 0)))
           FILTER (WHERE p.done_at > now() - make_interval(secs => :window_s)))::double precision AS late_s
FROM stacks s JOIN stack_parts p USING (stack_id)
WHERE s.stack_id = :stack_id GROUP BY s.stack_id, p.step;

-- name: set_coadded(result, stack_id)!
-- The stack's pixels are there; a stack that went further already stays where it is.
UPDATE stacks
SET state = CASE WHEN state IN ('done', 'exported') THEN state ELSE 'coadded' END,
    plan = jsonb_set(plan, '{making,ended}', 'true'),
    result = (result - 'failure') || :result, updated_at = now()
WHERE stack_id = :stack_id;

-- name: parts_needed(stack_ids, node_id, keep_failed_s)
-- Whether the parts of these stacks are still needed (here): it is being made, or failed not so long ago.
SELECT stack_id,
       (:node_id::text IS NULL OR node_id IS NULL OR node_id = :node_id::text)
       AND NOT coalesce((plan -> 'making' ->> 'ended')::boolean, false)
       AND NOT EXISTS (SELECT 1 FROM stacks r WHERE r.replaces = s.stack_id AND r.state <> 'failed')
       AND (state <> 'failed' OR updated_at > now() - make_interval(secs => :keep_failed_s)) AS needed
FROM stacks s WHERE stack_id = ANY(:stack_ids::text[]);

-- name: set_failed(failure, stack_id, dead_letter_id)!
-- A stage gave up, and its dead letter was not sent again meanwhile. What was made already stays; sent again,
-- the stack goes on from where it was.
UPDATE stacks
SET state = 'failed', result = result || jsonb_build_object('failure', :failure::jsonb), updated_at = now()
WHERE stack_id = :stack_id AND state <> 'exported'
  AND NOT EXISTS (
      SELECT 1 FROM dead_letters WHERE dead_letter_id = :dead_letter_id AND sent_again_at IS NOT NULL
  );

-- name: replaced(stack_id)$
-- Which stack one that has failed was to be made instead of.
SELECT replaces FROM stacks WHERE stack_id = :stack_id AND state = 'failed';
