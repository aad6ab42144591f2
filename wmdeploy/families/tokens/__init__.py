"""Token models: a VQ tokenizer, and a transformer that draws a frame token by token (IRIS)."""
