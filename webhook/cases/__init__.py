"""Decisions as documents: what is asked, by which facts, and what must come out; for `client-ip test` and our own."""
