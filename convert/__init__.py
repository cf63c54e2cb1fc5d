"""Makes a GGUF of a Hugging Face checkpoint; `convert.__main__` is the command line."""
