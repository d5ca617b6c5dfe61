"""The room ``inexact``."""
