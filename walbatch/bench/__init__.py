"""Measuring walbatch on the disk where it runs: processes, loads, and what they are compared with.

The server, the loads, the destination and SQLite alone are each a process of its own. The scripts in `bench/` measure
more, with the same pieces; `walbatch bench` is `walbatch.bench.measure`.
"""
