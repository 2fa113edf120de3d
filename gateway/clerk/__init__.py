"""What is known of Clerk: its event types, the entity each belongs to, and sample events.

All of it advises. An event type that nobody knows routes like any other.
"""
