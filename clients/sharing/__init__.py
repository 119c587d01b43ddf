"""Share policies, which choose what a device lets go, and the guard that checks what really leaves."""

from clients.sharing.policies import SharePolicy

__all__ = ["SharePolicy"]
