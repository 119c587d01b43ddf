"""The three filters that judge synthetic pairs: scores, verdicts, and the chain that keeps."""
