"""Where models come from: what is installed, what is fetched, and the built-in demo."""
