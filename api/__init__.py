"""Wire formats: JSON to requests, events to JSON and SSE. Knows nothing of llama.cpp."""
