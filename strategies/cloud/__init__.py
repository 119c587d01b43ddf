"""Prompts of the cloud, the parser of its answers, and the engines that write them."""
