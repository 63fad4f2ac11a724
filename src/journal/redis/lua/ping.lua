#!lua
-- Whether steps are taken: without flags, a server that is full, read-only or cannot save refuses even this.
--
-- Guarantee: it writes nothing.
--
-- Returns 0
return 0
