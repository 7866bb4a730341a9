"""Records as text for frozen language models: serialisers, the encoder, and the store of its vectors."""
