"""Inbox mode: an event is stored first, and dispatched to its targets in the background."""
