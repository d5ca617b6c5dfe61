"""The room ``pull``."""
