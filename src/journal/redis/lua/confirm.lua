#!lua flags=allow-oom
-- Leaves a mark that replicas get after everything that was done before it, so that a WAIT behind it waits for that too.
--
-- Guarantee: it is a write whatever is stored.
--
-- KEYS  1 confirm
-- Returns 0
redis.call('SET', KEYS[1], '')
return 0
