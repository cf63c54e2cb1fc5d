"""Linnet beside other servers: the same model, prompts and client, by turns."""
