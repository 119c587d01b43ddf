"""Everything the cloud does: it sees the public part of the data and what devices upload, never a private folder."""
