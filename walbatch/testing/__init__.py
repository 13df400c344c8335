"""Stand-ins for testing walbatch and what uses it. They ship, and keep their promises as the real ones do."""
