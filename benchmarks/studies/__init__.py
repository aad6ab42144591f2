"""Programs behind figures in docs/."""
