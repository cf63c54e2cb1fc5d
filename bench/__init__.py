"""Programs that measure. Their figures are the only ones the documentation quotes."""
