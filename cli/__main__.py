"""`python -m walbatch.cli`."""

from .main import app

app()
