"""The room ``sine``."""
