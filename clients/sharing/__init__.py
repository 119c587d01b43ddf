"""Share policies, which choose what a device lets go, and the guard that checks what really leaves."""
