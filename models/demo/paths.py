"""Where the recipe reads and writes, seen from the repository root."""

from pathlib import Path

HERE = Path("models/demo")
DEMO = HERE / "demo.gguf"
TEMPLATE = HERE / "template.jinja"
README = HERE / "README.md"

BUILD = Path("build/demo")
CHECKPOINT = BUILD / "checkpoint.pt"
TOKENIZER = BUILD / "tokenizer.json"
LAYOUT = BUILD / "layout.json"  # some chats with the tokens of the training; evaluate.py compares llama.cpp's with them
