#!lua flags=allow-oom
-- Writes something, so that a WAIT after it waits until replicas have everything that was done before.
--
-- Guarantee: it always writes.
--
-- KEYS  1 confirm
-- Returns 0
redis.call('SET', KEYS[1], '')
return 0
