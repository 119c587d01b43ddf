"""Everything that sees private history: sharing, personalising, answering, on a user's own device."""
