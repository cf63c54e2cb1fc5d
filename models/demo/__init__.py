"""The built-in demo model: a very small chat model of our own, and the recipe that makes it."""
