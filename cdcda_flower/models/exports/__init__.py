"""A trained adapter as other programs load it: PEFT, transformers, llama.cpp, MLX (docs/how-to/take-an-adapter-with-you.md)."""
