"""The thin wrapper around llama.cpp: it knows tokens and sequences, and nothing of HTTP or of OpenAI's JSON."""
