"""What was answered before, kept for the next who asks: bytes under keys, in memory and on disk. Knows no HTTP, no model."""
