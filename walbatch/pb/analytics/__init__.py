"""Package analytics of the generated code."""
