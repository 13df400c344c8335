"""The command line: one command a module. Nobody imports it."""
