"""`python -m models`: the installed models."""

from models.store import installed


def main() -> None:
    """One line each: name, size, file."""
    for name, path in installed().items():
        print(f"{name:40} {path.stat().st_size / 1e6:8,.0f} MB  {path}")
    print("More: make download-gguf")


if __name__ == "__main__":
    main()
