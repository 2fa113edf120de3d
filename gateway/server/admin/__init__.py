"""The admin port: health and metrics of the whole process tree, and the guard before them.

throttle and admission are pure: a request's head and the time in, a denial or nothing out.
"""

from gateway.server.admin.app import AdminSource, UnguardedError, admin_app, assert_guarded

__all__ = ["AdminSource", "UnguardedError", "admin_app", "assert_guarded"]
