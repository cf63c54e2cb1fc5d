"""The only room of the server that touches llama.cpp."""
