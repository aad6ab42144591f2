"""What a world model does each frame, as data, and what runs it. Knows no model and no runtime."""
