"""The admin port: health and metrics of the whole process tree, and the guard before them.

throttle and admission are pure: a request's head and the time in, a denial or nothing out.
"""

from gateway.server.admin.app import AdminSource, UnguardedError, admin_app, assert_guarded
from gateway.server.admin.guard import SAFE_HEADERS

__all__ = ["SAFE_HEADERS", "AdminSource", "UnguardedError", "admin_app", "assert_guarded"]
