"""Plugin `auth_rbac`: certificates, tokens, roles."""

from sagong_auth_rbac.plugin import AuthRbac

__all__ = ["AuthRbac"]
