"""The page of the admin port, for people: one screen that says how the server is doing, and lets them change that.

    GET  /              the page; readable without JavaScript, which then only sees the numbers of that moment
    GET  /static/...    its style and its scripts
    GET  /api/history   the last hour: a sample each ten seconds of what was accepted, sent, and pending
    GET  /api/batches   the last 50 batches that were answered
    GET  /api/dead      open dead letters in groups, each with one example without its values
    GET  /api/live      server-sent events, one about every second: `/stats`, and what is new of the first two

Whoever can reach the port may read all of it, so nothing of it holds what is in a record. Changes are the POSTs of
`walbatch.maintenance`, with the token. Nothing is remembered on disk: after a restart the hour begins anew.
"""
