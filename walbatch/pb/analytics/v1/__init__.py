"""Package analytics.v1 of the generated code."""
