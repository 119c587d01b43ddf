"""The paper's tables and figures from finished runs, ours beside the paper's numbers."""
